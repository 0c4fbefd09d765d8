"""Where the peers are installed: a virtual environment of their own, with released packages and the servers that they need."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench.contender import ROOT

FOLDER = ROOT / "var" / "peers"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")


class Environment(msgspec.Struct, frozen=True):
    """A virtual environment."""

    folder: Path

    @property
    def bin(self) -> Path:
        """Where its programs are."""
        return self.folder / "bin"

    @property
    def packages(self) -> Path:
        """Where its packages are."""
        return next((self.folder / "lib").glob("python3.*")) / "site-packages"

    def command(self, words: Sequence[str]) -> list[str]:
        """A command of this environment."""
        return [str(self.bin / words[0]), *words[1:]]

    def versions(self) -> dict[str, str]:
        """Each package's version."""
        listed = subprocess.run(self.command(["python", "-m", "pip", "list", "--format", "json"]), check=True, capture_output=True).stdout
        found = msgspec.json.decode(listed, type=list[dict[str, str]])
        return {package["name"]: package["version"] for package in found}


OURS = Environment(Path(sys.prefix))


def peers() -> Environment:
    """The peers' environment, made if it is not there or if `requirements.txt` has changed."""
    made = Environment(FOLDER)
    mark, wanted = FOLDER / "installed.txt", REQUIREMENTS.read_text("utf-8")
    if not mark.exists() or mark.read_text("utf-8") != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", FOLDER], check=True)
        subprocess.run(made.command(["python", "-m", "pip", "install", "--quiet", "-r", str(REQUIREMENTS)]), check=True)
        mark.write_text(wanted, "utf-8")
    return made
