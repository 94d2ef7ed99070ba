"""What a running dashboard tells a browser, read from its web socket without one."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import connect


def free_port() -> int:
    """A port of the loopback device that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(
    command: Sequence[str], folder: Path, log: Path, port: int = 0, seconds: float = 90, **environment: str
) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Run a command that serves the dashboard in a folder, on a port, a free one for 0.

    Yields:
        The port and the process, once it is healthy.

    Raises:
        RuntimeError: it ended, or is not healthy in time; with its log.
    """
    port = port or free_port()
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, f"--server.port={port}"], cwd=folder, stdout=out, stderr=out, env=os.environ | environment
        )
    try:
        end = time.monotonic() + seconds
        while not healthy(port):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"The server is not healthy:\n{log.read_text(errors='replace')}")
            time.sleep(0.1)
        yield port, process
    finally:
        process.terminate()
        process.wait(20)


def healthy(port: int) -> bool:
    """Whether the server says that it is; any unknown path answers 200 with the start page, so its words count."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=2) as answer:
            return bool(answer.read().strip() == b"ok")
    except OSError:
        return False


def listens_elsewhere(port: int) -> bool:
    """Whether the port answers on another address of this machine than 127.0.0.1, here one of the loopback device."""
    try:
        socket.create_connection(("127.0.0.2", port), timeout=2).close()
    except OSError:
        return False
    return True


def messages(port: int, *, origin: str = "") -> Generator[ForwardMsg]:
    """What the server sends to one who opens the first page, until the page is complete.

    Args:
        port: of the server.
        origin: of the page that asks; the server's own unless given.
    """
    options = {"origin": origin or f"http://127.0.0.1:{port}", "subprotocols": ["streamlit"], "max_size": None}
    with connect(f"ws://127.0.0.1:{port}/_stcore/stream", **options) as stream:
        request = BackMsg()
        request.rerun_script.query_string = ""
        stream.send(request.SerializeToString())
        kind = ""
        while kind != "script_finished":
            message = ForwardMsg.FromString(stream.recv(timeout=60))
            kind = str(message.WhichOneof("type"))
            yield message
