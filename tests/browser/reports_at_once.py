"""What ten readers wait for who open a radiograph each at once: ``python -m tests.browser.reports_at_once``.

They speak to a real server as a page does, without a browser, whose drawing would be measured too. The server has the
reports of none of these films. The same with helpers and without (CXR_HELPERS), in turn.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from statistics import median
from threading import Timer
from urllib.parse import urlencode

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import connect

from core.studies.sources import open_source
from dashboard import settings
from tests.browser.conftest import Server, start_server

SOURCE, FAMILY_SIZE = "example", 12
READERS = 10
ALONE, WARM = 3, 3  # films that are read one after another, and before anything is measured
QUIET = 20.0  # seconds in which helpers load their models


def read(server: Server, study: str, clicks: Sequence[float] = ()) -> tuple[float, int]:
    """Open a study on Read: seconds until its last report is there, and how many there are.

    Args:
        study: of ``SOURCE``.
        clicks: seconds after which the page is asked to run again, as a click on it does.
    """
    began = time.perf_counter()
    address = server.url.replace("http", "ws") + "/_stcore/stream"
    with connect(address, subprotocols=["streamlit"], max_size=None, open_timeout=60) as socket:  # type: ignore[list-item]
        message = BackMsg()
        message.rerun_script.query_string = urlencode({"source": SOURCE, "study": study})
        socket.send(message.SerializeToString())
        for seconds in clicks:
            Timer(seconds, socket.send, [message.SerializeToString()]).start()
        while True:
            told = ForwardMsg.FromString(bytes(socket.recv(timeout=600)))  # type: ignore[arg-type]
            element = told.delta.new_element.bidi_component
            if told.WhichOneof("type") != "delta" or not element.component_name.endswith("cxr_reports"):
                continue
            (given,) = json.loads(element.json)
            cards = given["cards"]
            if len(cards) == FAMILY_SIZE and not any(card.get("waiting") for card in cards):
                broken = [card["error"] for card in cards if card.get("error")]
                assert not broken, broken
                return time.perf_counter() - began, len(cards)


def measure(server: Server, studies: Sequence[str]) -> tuple[list[float], list[float], float]:
    """Seconds of readers one after another, of readers at once, and of all who came at once."""
    warm, alone, at_once = studies[:WARM], studies[WARM : WARM + ALONE], studies[WARM + ALONE :][:READERS]
    with ThreadPoolExecutor(len(at_once)) as readers:
        list(readers.map(lambda study: read(server, study), warm))
        time.sleep(QUIET)
        single = [read(server, study)[0] for study in alone]
        began = time.perf_counter()
        several = [seconds for seconds, _ in readers.map(lambda study: read(server, study), at_once)]
        return single, several, time.perf_counter() - began


def main() -> None:
    """Print a Markdown table."""
    studies = open_source(SOURCE).ids("test")
    sys.stdout.write(
        "| helpers | one reader, s | at once | median, s | longest, s | reports a second, one | at once | ratio |\n"
    )
    sys.stdout.write("|---:|---:|---:|---:|---:|---:|---:|---:|\n")
    for helpers in dict.fromkeys((0, settings.helpers())):
        with tempfile.TemporaryDirectory() as folder:
            started = start_server(Path(folder), CXR_HELPERS=str(helpers))
            with closing(started):
                single, several, whole = measure(next(started), studies)
        one, many = FAMILY_SIZE / median(single), FAMILY_SIZE * len(several) / whole
        sys.stdout.write(
            f"| {helpers} | {median(single):.2f} | {len(several)} | {median(several):.2f} | {max(several):.2f} "
            f"| {one:.1f} | {many:.1f} | {many / one:.2f} |\n"
        )
        sys.stdout.flush()
    sys.stdout.write(
        f"\nOther work counts too: {os.getloadavg()[1]:.1f} processes wanted the {os.cpu_count()} cores.\n"
    )


if __name__ == "__main__":
    main()
