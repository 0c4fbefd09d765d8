"""Other job libraries beside cabrank, in one run: `python -m bench.peers`.

    python -m bench.peers                                          # all, three rounds, about an hour
    python -m bench.peers --only cabrank huey                      # some of them
    python -m bench.peers --markdown docs/benchmarks/peers.md      # writes the page of the docs and its plots

The peers are installed into var/peers, with their Redis and their PostgreSQL; nothing else on the machine is used or changed.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from bench.contender import ROOT
from bench.disk import fsync_p50_s
from bench.peers.environment import peers
from bench.peers.measure import Figures, best, measure
from bench.peers.report import grids, write
from bench.peers.who import PEERS
from bench.report import markdown


def say(line: str) -> None:
    """Tell whoever waits how far it is."""
    print(line, file=sys.stderr, flush=True)


def main() -> int:
    """Measure, print, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured, one after the other; the best counts")
    parser.add_argument("--only", nargs="*", choices=[peer.name for peer in PEERS], help="who takes part")
    parser.add_argument("--folder", type=Path, default=ROOT / "var", help="where servers and files are put, and removed again")
    parser.add_argument("--raw", type=Path, help="read figures from there instead of measuring those in it, and write all there")
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    environment = peers()
    raw: Path = options.raw or ROOT / "var" / "bench" / f"peers-{time.strftime('%Y%m%d-%H%M%S')}.json"
    raw.parent.mkdir(parents=True, exist_ok=True)
    found = msgspec.json.decode(raw.read_bytes(), type=dict[str, list[Figures]]) if raw.exists() else {}
    options.folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        Path(folder).chmod(0o755)  # PostgreSQL runs as somebody else
        fsync_s = fsync_p50_s(Path(folder))
        for number in range(options.rounds):
            for peer in PEERS:
                rounds = found.setdefault(peer.name, [])
                if len(rounds) == number and (options.only is None or peer.name in options.only):
                    rounds.append(measure(peer, environment, Path(folder), say, kill=not number))
                    raw.write_bytes(msgspec.json.encode(found))
    figures = {name: best(rounds) for name, rounds in found.items() if rounds}
    for grid in grids(figures):
        print(f"\n{grid.title}\n{markdown(grid)}")
    if options.markdown is not None:
        write(options.markdown, figures, environment.versions(), fsync_s, rounds=min(len(its) for its in found.values() if its))
    return 0


if __name__ == "__main__":
    sys.exit(main())
