"""A browser for the tests: one that is here, else one that is brought. ``python -m tests.browser.find``.

Found are Chromium, Chrome and Edge: the one that ``CXR_BROWSER`` names, those on the PATH, snap's, those in macOS's
application folders, and playwright's own download. Brought is Debian's package where that needs no password, else
playwright's own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from playwright.sync_api import Browser, Error, Playwright, sync_playwright

NAMES = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "microsoft-edge",
    "microsoft-edge-stable",
)
ELSEWHERE = (
    "/snap/bin/chromium",
    "/opt/google/chrome/chrome",
    "/opt/microsoft/msedge/msedge",
    *(
        f"{folder}/Applications/{name}.app/Contents/MacOS/{name}"
        for folder in ("", "~")
        for name in ("Chromium", "Google Chrome", "Microsoft Edge")
    ),
)
"""Where they are when no name on the PATH leads to them; ~ is the user's home."""

FLAGS = [
    "--no-sandbox",
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
APT = ["-o", "Acquire::http::Timeout=20", "-o", "Acquire::Retries=0"]  # without a network it ends soon
PACKAGES = ["chromium", "fonts-dejavu-core"]
PATIENCE = 900  # seconds for one command; a browser has 200 MB


class NoBrowserError(Exception):
    """No browser started; the message says which were tried."""


def candidates(environ: Mapping[str, str], home: Path) -> list[Path | None]:
    """Programs to try, in this order; None is playwright's own download.

    Args:
        environ: ``CXR_BROWSER`` (a path or a name) is the only one that is tried where it is set; else ``PATH``.
        home: the user's.
    """
    path = environ.get("PATH", "")
    if named := environ.get("CXR_BROWSER"):
        return [Path(shutil.which(named, path=path) or named)]
    places = [Path(folder, name) for folder in path.split(os.pathsep) if folder for name in NAMES]
    places += [Path(place.replace("~", str(home), 1)) for place in ELSEWHERE]
    found: dict[Path, Path] = {}  # by what a link leads to: many names are links
    for place in places:
        if place.is_file() and os.access(place, os.X_OK):
            found.setdefault(place.resolve(), place)
    return [*found.values(), None]


def start(playwright: Playwright) -> Browser:
    """Start the first browser that does: one that is found may be a stub, as Ubuntu's of a snap that is not there.

    Raises:
        NoBrowserError: none did.
    """
    tried = []
    for program in candidates(os.environ, Path.home()):
        try:
            return playwright.chromium.launch(executable_path=program, args=FLAGS)
        except Error as error:
            tried.append(f"{program or 'of playwright'}: {str(error).splitlines()[0]}")
    raise NoBrowserError("; ".join(tried))


def debian(path: str, root: bool, packages: Sequence[str]) -> list[Sequence[str]]:
    """Commands that install packages of Debian and ask for no password; none where there is no such way.

    Args:
        path: where programs are looked for.
        root: whether this is the superuser.
        packages: their names.
    """
    apt, sudo = shutil.which("apt-get", path=path), shutil.which("sudo", path=path)
    before: list[str] | None = None
    if root:
        before = ["env"]
    elif sudo and subprocess.run([sudo, "-n", "true"], capture_output=True, check=False).returncode == 0:
        before = [sudo, "-n", "env"]
    if not apt or not before:
        return []
    with_apt = [*before, "DEBIAN_FRONTEND=noninteractive", apt, "-qq", *APT]
    return [[*with_apt, "update"], [*with_apt, "install", "-y", "--no-install-recommends", *packages]]


def ways(path: str, root: bool) -> Iterator[list[Sequence[str]]]:
    """Ways to bring a browser, each some commands; see `debian`."""
    own = [sys.executable, "-m", "playwright", "install", "chromium"]
    if packages := debian(path, root, PACKAGES):
        yield packages
        yield [own, [*own[:3], "install-deps", "chromium"]]  # Ubuntu's package is a stub
    yield [own]


def carry_out(commands: Sequence[Sequence[str]]) -> None:
    """Run commands one after another, as long as none fails; say each."""
    for command in commands:
        print("  " + " ".join(command), file=sys.stderr)
        try:
            ended = subprocess.run(command, timeout=PATIENCE, check=False).returncode
        except (OSError, subprocess.TimeoutExpired) as error:
            print(f"  {error}", file=sys.stderr)
            return
        if ended:
            return


def bring() -> None:
    """Find a browser or bring one, and say which, or what was tried.

    Raises:
        SystemExit: CXR_BROWSER names one that does not start.
    """
    with sync_playwright() as playwright:

        def starts() -> bool:
            try:
                browser = start(playwright)
            except NoBrowserError as error:
                print(f"No browser started: {error}", file=sys.stderr)
                return False
            print(f"Browser for the tests: {browser.browser_type.name} {browser.version}")
            browser.close()
            return True

        if starts():
            return
        if os.environ.get("CXR_BROWSER"):
            sys.exit("CXR_BROWSER names a browser that does not start. Unset it, and one is looked for.")
        for way in ways(os.environ.get("PATH", ""), os.geteuid() == 0):
            carry_out(way)
            if starts():
                return
    print("There is no browser for the tests, and none could be brought: theirs are left out.", file=sys.stderr)


if __name__ == "__main__":
    bring()
