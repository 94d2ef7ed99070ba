"""What some tests need and a machine may lack. The last line of a run names what was left out, and how to have it.

A test that cannot run everywhere is skipped by a `Need` of this module, so that none is skipped without a word. Where
``CI`` is set, a run that left out anything but what ``elsewhere`` allows fails.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
"""Data that cannot be given away, beside the clone."""
FIELD = SHARED.with_name("cases")
"""Files from the field, there too."""


@dataclass(frozen=True, slots=True)
class Need:
    """Something that some tests need.

    Attributes:
        what: its name, as it stands after "tests that need".
        how: how to have it.
        elsewhere: whether CI may be without.
    """

    what: str
    how: str
    elsewhere: bool = False

    @property
    def reason(self) -> str:
        """The sentence that a skipped test gives."""
        return f"{self.what} ({self.how})"

    def unless(self, there: bool) -> pytest.MarkDecorator:
        """A mark that skips a test unless the thing is there."""
        return pytest.mark.skipif(not there, reason=self.reason)

    def packages(self, *names: str) -> pytest.MarkDecorator:
        """A mark that skips a test unless all of these modules are installed."""
        return self.unless(all(find_spec(name) for name in names))

    def package(self, name: str) -> Any:
        """A module, or the test ends as skipped."""
        return pytest.importorskip(name, reason=self.reason)

    def skip(self) -> NoReturn:
        """End a test as skipped."""
        pytest.skip(self.reason)


def _extra(what: str, name: str, *, elsewhere: bool = False) -> Need:
    return Need(what, f"pip install -e '.[{name}]' -c constraints.txt", elsewhere)


BROWSER = Need("a browser", "install Chromium, Chrome or Edge, or name its program in CXR_BROWSER")
BUNDLES = Need("the demo bundles", "they are in assets/bundles of a whole clone")
DEVELOPER = _extra("packages to compare with", "dev")
SITE = _extra("the generator of the documentation", "docs")
NOTEBOOK = _extra("a notebook's kernel", "dev")
TRANSFORMERS = _extra("transformers", "hf")
SMALL = _extra("ImageNet's and MiniLM's weights", "small")
PARSER = _extra("spaCy and its English pipeline", "labels")
METRICS = _extra("METEOR and its Java", "metrics")
DICOM_FILES = Need("pydicom's own test files", "reinstall pydicom")
PROC = Need("/proc", "Linux", elsewhere=True)
NODE = Need("Node.js", "apt install nodejs", elsewhere=True)
FORK = Need("processes that fork", "Linux or macOS", elsewhere=True)
CASES = Need("files from the field", "they cannot be given away; here they are ../shared/cases", elsewhere=True)
ROOT = Need("the rights to become another user", "run as root", elsewhere=True)
RIGHTS = Need("rights of files as POSIX has them", "Linux or macOS", elsewhere=True)
SIGNALS = Need("POSIX signals", "Linux or macOS", elsewhere=True)
OPENI = Need("Open-i's studies", "docs/data.md says where to get them; here they are ../shared/data", elsewhere=True)
NIH = Need(
    "a part of ChestX-ray14", "docs/bring-your-own.md says where to get it; here it is ../shared/data", elsewhere=True
)
DICOM_EXPORT = _extra("highdicom", "dicom-export")
FHIR = _extra("a validator of FHIR", "dev")
CATBOOST = _extra("CatBoost", "study", elsewhere=True)
REFERENCE = _extra("torchxrayvision's copy of Open-i's codes", "reference", elsewhere=True)
ORTHANC = Need("Orthanc with DICOMweb", "make orthanc, or apt install orthanc orthanc-dicomweb", elsewhere=True)
POSTGRES = Need("a PostgreSQL server", "apt install postgresql: /usr/lib/postgresql, user postgres", elsewhere=True)
OPENVINO = Need("OpenVINO", "pip install --no-deps openvino", elsewhere=True)
ALL = [each for each in list(globals().values()) if isinstance(each, Need)]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, None, None]:
    """Say in the very last line what was left out; where CI promises it, fail."""
    yield
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or hasattr(session.config, "workerinput"):
        return
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ")
        for report in reporter.stats.get("skipped", ())
        if isinstance(report.longrepr, tuple)  # not a test that is expected to fail
    )
    if not reasons:
        return
    told = "; ".join(f"{count} for want of {reason}" for reason, count in reasons.most_common())
    failed = os.environ.get("CI", "").lower() == "true" and any(
        reason not in {need.reason for need in ALL if need.elsewhere} for reason in reasons
    )
    if failed and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    colour = {"red": True} if failed else {"yellow": True}
    reporter.write_line(f"Tests left out: {told}." + (" CI needs them." if failed else ""), **colour)
