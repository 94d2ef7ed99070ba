"""A real DICOMweb server for the tests: Orthanc with its plug-in. ``python -m tests.orthanc`` finds it, or brings it.

Brought is Debian's package where that needs no password. Where it is not, its tests are left out, which the last line
of a run of the tests says.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from tests import needs
from tests.browser.find import carry_out, debian
from tests.served import free_port

PACKAGES = ["orthanc", "orthanc-dicomweb"]


def program() -> tuple[str, Path] | None:
    """Orthanc and its plug-in; None where one of them is missing."""
    # Debian puts it where only the superuser's PATH leads.
    found = shutil.which("Orthanc", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))
    plugin = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
    return (found, plugin) if found and plugin.is_file() else None


@contextmanager
def serving(folder: Path, files: Iterable[bytes]) -> Iterator[str]:
    """Run it on this machine alone, with DICOM files in it, until the context ends.

    Args:
        folder: for its data, settings and log.
        files: that it is given.

    Yields:
        The address of its DICOMweb service.

    Raises:
        RuntimeError: it ended, or does not answer in time; with its log.
    """
    found = program()
    if found is None:
        needs.ORTHANC.skip()
    port, log = free_port(), folder / "log"
    (folder / "data").mkdir(parents=True)
    settings = {
        "StorageDirectory": str(folder / "data"),
        "IndexDirectory": str(folder / "data"),
        "HttpPort": port,
        "DicomServerEnabled": False,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "Plugins": [str(found[1])],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with log.open("wb") as out:
        server = subprocess.Popen([found[0], str(folder / "orthanc.json")], stdout=out, stderr=out)
    try:
        end = time.monotonic() + 60
        while not _answers(port):
            if server.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"Orthanc does not answer:\n{log.read_text(errors='replace')}")
            time.sleep(0.1)
        for content in files:
            requests.post(f"http://127.0.0.1:{port}/instances", data=content, timeout=20).raise_for_status()
        yield f"http://127.0.0.1:{port}/dicom-web"
    finally:
        server.kill()  # its end takes seconds, and what it holds is not needed any more
        server.wait()


def _answers(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/system", timeout=2).ok
    except requests.RequestException:
        return False


def bring() -> None:
    """Find it or bring it, and say which."""
    if program() is None:
        carry_out(debian(os.environ.get("PATH", ""), os.geteuid() == 0, PACKAGES))
    found = program()
    if found is None:
        sys.stderr.write("There is no Orthanc for the tests, and none could be brought: theirs are left out.\n")
    else:
        sys.stdout.write(f"Orthanc for the tests: {found[0]}\n")


if __name__ == "__main__":
    bring()
