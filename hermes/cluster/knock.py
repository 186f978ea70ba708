"""Can nodes reach the broker's address, before there is a broker? Something listens in its place,
for as long as the doctor looks, and says a word by which it is known."""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
from collections.abc import Iterator

WORD = 16
"""Characters."""


@contextlib.contextmanager
def listening(listen: str, port: int) -> Iterator[str]:
    """Listen there; the word that is said to whoever comes. Raises `OSError`."""
    word = secrets.token_hex(WORD // 2)
    family = socket.AF_INET6 if ":" in listen else socket.AF_INET
    with socket.create_server((listen, port), family=family, backlog=64) as server:
        over = threading.Event()
        thread = threading.Thread(target=_answer, args=(server, word.encode(), over), daemon=True)
        server.settimeout(0.2)
        thread.start()
        try:
            yield word
        finally:
            over.set()
            thread.join(2.0)


def _answer(server: socket.socket, word: bytes, over: threading.Event) -> None:
    while not over.is_set():
        with contextlib.suppress(OSError):
            peer, _ = server.accept()
            with peer:
                peer.settimeout(1.0)
                peer.sendall(word)
