"""The figures of one run, as a record that is kept and as the table that is shown."""

import math
from collections.abc import Iterable, Sequence

import msgspec
from rich.table import Table

from examples.demo.burst import Record
from examples.demo.flights import KeyedDocument
from examples.demo.server import Life
from examples.demo.verdict import Verdict

ALREADY_THERE = b"already there: "  # the line that examples/telemetry.py logs for a put that an earlier run had made


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What one run showed."""

    documents: int
    payloads: int
    documents_acknowledged: int
    payloads_acknowledged: int
    objects: int
    payloads_stored: int
    lost: int
    invented: int
    misplaced: int
    kills: int
    written_again: int
    written_twice: int
    sent_again_unanswered: int
    sent_again_refused: int
    acknowledged_per_s: float
    payloads_per_s: float
    ack_p50_ms: float
    ack_p99_ms: float
    restarts_to_ready_s: list[float]
    restarts_to_first_job_s: list[float | None]  # None: killed again before any job was done, or nothing was left to do
    peak_memory: int | None  # bytes, the largest of all lives

    @property
    def passed(self) -> bool:
        """True when nothing was lost, nothing was invented and everything was acknowledged."""
        return self.lost == self.invented == self.misplaced == 0 and self.payloads_acknowledged == self.payloads


def derive(documents: Sequence[KeyedDocument], record: Record, verdict: Verdict, *, timed: bool) -> Figures:
    """The figures that follow from what the client saw and what the bucket holds. `timed`: it says to the millisecond when."""
    acks_s = sorted(one.ack_s for one in record.acknowledged)
    acknowledged = sum(one.document.payloads for one in record.acknowledged)
    finished_at = max(verdict.stored_at, default=record.sent_until_at) if timed else record.complete_at
    again = record.lives[1:]
    return Figures(
        documents=len(documents),
        payloads=sum(document.payloads for document in documents),
        documents_acknowledged=len(record.acknowledged),
        payloads_acknowledged=acknowledged,
        objects=verdict.objects,
        payloads_stored=verdict.payloads,
        lost=verdict.lost,
        invented=verdict.invented,
        misplaced=verdict.misplaced,
        kills=len(again),
        written_again=sum(life.log.read_bytes().count(ALREADY_THERE) for life in record.lives),
        written_twice=verdict.twice,
        sent_again_unanswered=record.unanswered,
        sent_again_refused=record.refused,
        acknowledged_per_s=acknowledged / (record.sent_until_at - record.sent_from_at),
        payloads_per_s=verdict.payloads / (finished_at - record.sent_from_at),
        ack_p50_ms=_percentile(acks_s, 0.50) * 1e3,
        ack_p99_ms=_percentile(acks_s, 0.99) * 1e3,
        restarts_to_ready_s=[life.ready_at - life.started_at for life in again if life.ready_at is not None],
        restarts_to_first_job_s=[_to_first_job_s(life, verdict.stored_at) for life in again if timed],
        peak_memory=max((life.peak_memory for life in record.lives if life.peak_memory is not None), default=None),
    )


def table(figures: Figures) -> Table:
    """The figures for a person."""
    drawn = Table("what", "figure", title="The burst, killed and restarted", title_justify="left")
    drawn.columns[1].justify = "right"
    memory = "not told by this system" if figures.peak_memory is None else f"{figures.peak_memory / 1e6:.0f} MB"
    rows = {
        "documents sent": f"{figures.documents:,}",
        "payloads sent": f"{figures.payloads:,}",
        "payloads acknowledged": f"{figures.payloads_acknowledged:,}",
        "objects in the bucket": f"{figures.objects:,}",
        "payloads in them": f"{figures.payloads_stored:,}",
        "lost": f"{figures.lost:,}",
        "invented, or under another id": f"{figures.invented + figures.misplaced:,}",
        "SIGKILLs": f"{figures.kills}",
        "put again after a kill (already there)": f"{figures.written_again:,}",
        "in two packed objects after a kill": f"{figures.written_twice:,}",
        "requests sent again: no answer": f"{figures.sent_again_unanswered:,}",
        "requests sent again: 429 or 503": f"{figures.sent_again_refused:,}",
        "payloads/s acknowledged, restarts included": f"{figures.acknowledged_per_s:,.0f}",
        "payloads/s into the bucket, restarts included": f"{figures.payloads_per_s:,.0f}",
        "ack p50": f"{figures.ack_p50_ms:.1f} ms",
        "ack p99": f"{figures.ack_p99_ms:.1f} ms",
        "restart to the first job done": _seconds(figures.restarts_to_first_job_s) if figures.restarts_to_first_job_s else "not told",
        "restart to readiness": _seconds(figures.restarts_to_ready_s),
        "peak memory of the server": memory,
    }
    for what, figure in rows.items():
        drawn.add_row(what, figure)
    return drawn


def _to_first_job_s(life: Life, stored_at: Iterable[float]) -> float | None:
    # Told by the objects themselves: the process before was dead when this one began, so what is newer is this one's.
    until_at = math.inf if life.ended_at is None else life.ended_at
    first_at = next((at for at in stored_at if life.started_at <= at <= until_at), None)
    return None if first_at is None else first_at - life.started_at


def _percentile(ordered: Sequence[float], share: float) -> float:
    return ordered[math.ceil(len(ordered) * share) - 1] if ordered else math.nan


def _seconds(durations_s: Iterable[float | None]) -> str:
    return ", ".join("none" if one is None else f"{one:.2f} s" for one in durations_s) or "no restart"
