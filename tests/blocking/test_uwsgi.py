"""`cabrank.blocking` under uWSGI, which forks without telling Python unless it is asked to."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cabrank import blocking
from tests.blocking.programs import APP
from tests.blocking.test_processes import WEB, answers_of_two_workers, ask

UWSGI = Path(sys.executable).with_name("uwsgi")
pytestmark = pytest.mark.skipif(not UWSGI.exists(), reason="uWSGI is not installed beside this Python (the package pyuwsgi brings it)")


@contextmanager
def uwsgi(folder: Path, web: str, *options: str) -> Iterator[Path]:
    """uWSGI with two workers on a socket in `folder`; it must end well when it is told to."""
    (folder / "apps.py").write_text(APP, "utf-8")
    (folder / "web.py").write_text(web, "utf-8")
    own = {name: value for name, value in os.environ.items() if not name.startswith("CABRANK_")}
    command = [str(UWSGI), "--master", "--processes", "2", "--enable-threads", "--need-app", "--die-on-term"]
    command += ["--http-socket", "socket", "--module", "web", "--pythonpath", ".", *options]
    with subprocess.Popen(command, cwd=folder, env=own, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            said: list[str] = []
            for line in process.stderr:
                said.append(line)
                if sum("spawned uWSGI worker" in each for each in said) == 2:
                    break
            else:
                pytest.fail("".join(said))
            yield folder / "socket"
            process.terminate()
            process.communicate(timeout=20)
            assert process.returncode == 0
        finally:
            process.kill()


def check_all_are_there(folder: Path, answers: list[str]) -> None:
    """Two workers answered, each with ids of its own, and the file has them all."""
    assert len({answer.split()[0] for answer in answers}) == 2, answers
    assert all(answer.split()[0].isdecimal() for answer in answers), answers
    assert len({answer.split()[1] for answer in answers}) == len(answers)
    with blocking.Dispatcher(store=f"sqlite:///{folder / 'jobs.db'}") as opened:
        assert all(opened.handle(answer.split()[1]).state() in {"waiting", "done"} for answer in answers)


@pytest.mark.parametrize("options", [[], ["--lazy-apps"]])
@pytest.mark.parametrize("kind", ["Intake", "Dispatcher"])
def test_workers_of_uwsgi_each_open_their_own(tmp_path: Path, options: list[str], kind: str) -> None:
    with uwsgi(tmp_path, WEB.format(kind=kind, early=""), *options) as path:
        answers = answers_of_two_workers(path)
    check_all_are_there(tmp_path, answers)


def test_what_has_submitted_before_uwsgi_forked_goes_on_where_python_is_told_of_forks(tmp_path: Path) -> None:
    web = WEB.format(kind="Intake", early="front.submit(apps.double, 1)")
    with uwsgi(tmp_path, web, "--py-call-uwsgi-fork-hooks") as path:
        answers = answers_of_two_workers(path)
    check_all_are_there(tmp_path, answers)


def test_what_has_submitted_before_uwsgi_forked_is_refused_with_the_hooks_name_where_it_is_not(tmp_path: Path) -> None:
    with uwsgi(tmp_path, WEB.format(kind="Intake", early="front.submit(apps.double, 1)")) as path:
        answer = ask(path)
    assert answer.startswith("UsedAfterFork")
    assert "uwsgidecorators.postfork" in answer
    assert "--lazy-apps" in answer
