"""A reverse proxy as many are set up: it sends the server its own address as Host, and does not say that it is one."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def reverse_proxy(port: int, *, origin: bool = True) -> Iterator[int]:
    """Serve another port of the loopback device with what is at ``port``; yields the other port.

    Args:
        port: of the server.
        origin: whether the browser's Origin is passed on.
    """
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=_accept, args=(listening, port, origin), daemon=True).start()
        yield int(listening.getsockname()[1])


def _accept(listening: socket.socket, port: int, origin: bool) -> None:
    with suppress(OSError):  # closed
        while True:
            client, _ = listening.accept()
            threading.Thread(target=_serve, args=(client, port, origin), daemon=True).start()


def _serve(client: socket.socket, port: int, origin: bool) -> None:
    with suppress(OSError), client, socket.create_connection(("127.0.0.1", port)) as server:
        head = b""
        while b"\r\n\r\n" not in head:
            received = client.recv(65536)
            if not received:
                return
            head += received
        head, body = head.split(b"\r\n\r\n", 1)
        head = re.sub(rb"(?im)^host:.*?\r?$", b"Host: 127.0.0.1:%d\r" % port, head + b"\r")
        if not origin:
            head = re.sub(rb"(?im)^origin:.*\n?", b"", head)
        if b"upgrade: websocket" not in head.lower():  # one request a connection, so that each head is rewritten
            head = re.sub(rb"(?im)^connection:.*?\r?$", b"Connection: close\r", head)
        server.sendall(head.rstrip(b"\r\n") + b"\r\n\r\n" + body)
        back = threading.Thread(target=_pass_on, args=(server, client), daemon=True)
        back.start()
        _pass_on(client, server)
        back.join()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while received := source.recv(65536):
            target.sendall(received)
        target.shutdown(socket.SHUT_WR)
