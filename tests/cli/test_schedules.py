"""`cabrank schedules`: what it shows to people and to programs."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest

from cabrank.cli.commands import run

PROGRAM = """
import cabrank

app = cabrank.App()


@app.schedule("30 7 * * mon", timezone="Europe/Berlin", name="weekly", missed="skip")
@app.schedule(every_s=90)
@app.job
def report() -> None: ...
"""


@pytest.fixture
def app(tmp_path: Path) -> str:
    (tmp_path / "scheduled.py").write_text(PROGRAM, "utf-8")
    return f"{tmp_path}/scheduled.py:app"


def test_programs_get_a_line_for_each_schedule(app: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["schedules", app, "--json"]) == 0
    lines = {line["name"]: line for line in map(json.loads, capsys.readouterr().out.splitlines())}
    assert {name: (line["handler"], line["when"], line["missed"]) for name, line in lines.items()} == {
        "report": ("report", "every 90 s", "once"),
        "weekly": ("report", "30 7 * * mon Europe/Berlin", "skip"),
    }
    ticks = [datetime.fromisoformat(tick) for tick in lines["weekly"]["next"]]
    assert len(ticks) == 3
    assert {(tick.weekday(), tick.hour, tick.minute) for tick in ticks} == {(0, 7, 30)}
    assert all(datetime.fromisoformat(tick).timestamp() % 90 == 0 for tick in lines["report"]["next"])


def test_people_get_a_table(app: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert run(["schedules", app]) == 0
    shown = capsys.readouterr().out
    assert "30 7 * * mon Europe/Berlin" in shown
    assert "Mon " in shown


def test_an_app_without_schedules_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "unscheduled.py").write_text("import cabrank\n\napp = cabrank.App()\n", "utf-8")
    place = f"{tmp_path}/unscheduled.py:app"
    assert run(["schedules", place]) == 0
    assert capsys.readouterr().out == f"{place} has no schedules: @app.schedule above a handler makes one\n"
    assert (run(["schedules", place, "--json"]), capsys.readouterr().out) == (0, "")
