"""Where the dashboard finds its files, from the environment."""

from __future__ import annotations

import os
from pathlib import Path

import streamlit as st

from core import devices, paths
from core.devices import Precision
from core.studies.sources import local_indexes
from core.types import CXRLensError

REPOSITORY = paths.CODE
DICOMWEB = "CXR_DICOMWEB"  # as `core.studies.dicomweb.ADDRESS`, which brings requests


def bundles() -> Path:
    """Folder of model bundles: CXR_BUNDLES, or the demo bundles."""
    return Path(os.environ.get("CXR_BUNDLES") or paths.BUNDLES)


def runs() -> Path | None:
    """Folder of further evaluations, each a folder with results.json and reports.jsonl: CXR_RUNS."""
    return Path(os.environ["CXR_RUNS"]) if os.environ.get("CXR_RUNS") else None


def threads() -> int:
    """Threads of one inference: CXR_THREADS, or 1.

    One is right for tiny models, whose threads would mostly wait for each other. Give paper-size bundles as many as
    there are cores.

    Raises:
        CXRLensError: it is no such number.
    """
    return _number("CXR_THREADS", 1, 1)


def helpers() -> int:
    """Processes that write reports beside the server's own: CXR_HELPERS, or as many as it leaves cores.

    Raises:
        CXRLensError: it is no such number.
    """
    return _number("CXR_HELPERS", 0, max((os.cpu_count() or 1) // threads() - 1, 0))


def fault() -> str:
    """What cannot be used of the environment, so that nothing is served; "" where all can."""
    try:
        threads()
        helpers()
        devices.check_precision(precision())
    except CXRLensError as error:
        return f"{error} The dashboard was started with it in its environment: correct it there and start again."
    return ""


_MOST = 256  # processes or threads; more is a slip of the finger


def _number(name: str, least: int, otherwise: int) -> int:
    given = os.environ.get(name, "").strip()
    if not given:
        return otherwise
    if not (given.isdecimal() and given.isascii() and least <= int(given) <= _MOST):
        raise CXRLensError(f"{name} is '{given[:40]}': expected a whole number from {least} to {_MOST}.")
    return int(given)


def paper_tables() -> Path:
    """Folder of the paper's tables as CSV."""
    return paths.PAPER


def roles() -> Path:
    """Who may do what in review sessions on a server: CXR_ROLES, or ``roles.toml`` beside Streamlit's secrets.

    Of several files of secrets the last that is there counts, as with Streamlit; by default ``.streamlit/secrets.toml``
    in the user's home or in the working directory.
    """
    if os.environ.get("CXR_ROLES"):
        return Path(os.environ["CXR_ROLES"])
    secrets = [Path(each) for each in st.get_option("secrets.files")]
    beside = [each for each in secrets if each.is_file()] or [Path(".streamlit", "secrets.toml")]
    return beside[-1].with_name("roles.toml")


def sources() -> list[str]:
    """Sources of the user's own studies, as `core.studies.sources.open_source` takes them.

    Those in CXR_SOURCES, separated by commas; CXR_INDEX, one more index; every index in ``data`` of the working
    directory, where `cxr-lens data` is told to put it, data/openi first; the DICOMweb server of CXR_DICOMWEB.
    """
    named = [each.strip() for each in os.environ.get("CXR_SOURCES", "").split(",") if each.strip()]
    if os.environ.get("CXR_INDEX"):
        named.append(os.environ["CXR_INDEX"])
    named += map(str, sorted(local_indexes(), key=lambda folder: folder != paths.INDEX))
    # A folder is one source, however it is written.
    whole = [str(Path(each).expanduser().absolute()) if Path(each).expanduser().is_dir() else each for each in named]
    server = [f"dicomweb:{os.environ[DICOMWEB]}"] if os.environ.get(DICOMWEB) else []
    return list(dict.fromkeys([*whole, *server]))


def explanations() -> Path:
    """Folder of what was measured of explanations, a file a family."""
    return paths.EXPLANATIONS


def detections() -> list[Path]:
    """Folders of what was measured of detection: CXR_DETECTIONS, or those made in the working directory, then ours."""
    named = os.environ.get("CXR_DETECTIONS")
    return [Path(named)] if named else [paths.NEW_DETECTIONS, paths.DETECTIONS]


def result_tables() -> Path:
    """Folder of our own tables, as `cxr-lens table` writes them, a folder a family: CXR_TABLES."""
    return Path(os.environ.get("CXR_TABLES") or paths.TABLES)


def device() -> str:
    """Where pages and their processes compute, as `core.devices.open_device` takes it: CXR_DEVICE, or auto."""
    return devices.named_device()


def precision() -> Precision:
    """In which precision reports are written and studies embedded: CXR_PRECISION, or fp32."""
    return devices.named_precision()
