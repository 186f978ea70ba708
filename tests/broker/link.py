"""A link that goes down, as test equipment: a TCP proxy between a client and its broker.

It counts the bytes that cross it each way, is as fast as told, and goes down on a schedule that is
data: it *stalls* (accepts nothing, carries nothing, connections stay) or *closes* (connections are
reset, new ones refused). What each outage did is kept, so that a test can see that it happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import struct
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeVar

T = TypeVar("T")

Way = Literal["up", "down"]
"""To the broker, and from it."""

PIECE = 16 << 10
"""Bytes carried at once: what an outage can catch inside the link, a connection and direction."""

BUFFER = 64 << 10
"""Bytes that each end may hold: a link, not a store."""

TICK = 0.01
"""Seconds between two looks at whether anything crosses."""

PATIENCE = 10.0
"""Seconds for the link's own thread to do as it is told."""


class Outage(NamedTuple):
    """After `up` seconds of a link, `down` seconds of none."""

    up: float
    down: float
    how: Literal["stall", "close"]


@dataclass
class Fired:
    """An outage that happened."""

    outage: Outage
    before: int
    """Bytes that crossed, both ways, in the time up before it."""
    caught: int
    """Connections that were open when it began."""
    leaked: int = -1
    """Bytes that crossed while it lasted, once it is over."""


class Crossing(NamedTuple):
    """What a transfer took."""

    seconds: float
    bytes: int
    """That crossed the way of the transfer, framing and all."""
    fired: list[Fired]
    """Outages within it."""


@dataclass
class Link:
    """Listens at `address` from the start; `lead_to` says where the broker is."""

    rate: float
    """Bytes a second, each way; all connections together."""
    crossed: dict[Way, int] = field(default_factory=lambda: {"up": 0, "down": 0})
    """Bytes, each way."""

    def __post_init__(self) -> None:
        self._door: socket.socket | None = _listener(0)
        self.port = int(self._door.getsockname()[1])
        self.address = f"127.0.0.1:{self.port}"
        self._broker = 0
        self._free: dict[Way, float] = {"up": 0.0, "down": 0.0}  # when the next piece may start
        self._connections: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._is_up = asyncio.Event()
        self._is_up.set()
        self._accepting: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name="link", daemon=True)
        self._thread.start()

    def lead_to(self, port: int) -> None:
        """The broker listens there."""
        self._broker = port
        self._do(self._open())

    @contextlib.contextmanager
    def outages(self, schedule: Sequence[Outage]) -> Iterator[list[Fired]]:
        """The schedule again and again inside; those that have fired so far, in order. The link is
        up afterwards."""
        fired: list[Fired] = []
        end = asyncio.run_coroutine_threadsafe(self._follow(schedule, fired), self._loop)
        try:
            yield fired
        finally:
            end.cancel()
            self._do(self._rise())

    def crossing(
        self, way: Way, schedule: Sequence[Outage], transfer: Callable[[], T]
    ) -> tuple[T, Crossing]:
        """What the transfer gives, through these outages, and what it took."""
        before, begun = self.crossed[way], time.monotonic()
        with self.outages(schedule) as fired:
            found = transfer()
            seconds, happened = time.monotonic() - begun, list(fired)
        return found, Crossing(seconds, self.crossed[way] - before, happened)

    def close(self) -> None:
        """The end of it."""
        self._do(self._cut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # In the link's own thread.

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    async def _follow(self, schedule: Sequence[Outage], fired: list[Fired]) -> None:
        for outage in itertools.cycle(schedule):
            before = self._both
            await asyncio.sleep(outage.up)
            while outage.up and self._both == before:  # nobody is back: it would be one long outage
                await asyncio.sleep(TICK)
            self._is_up.clear()
            now = self._both
            fired.append(Fired(outage, now - before, len(self._connections)))
            if outage.how == "close":
                await self._cut()
            await asyncio.sleep(outage.down)
            fired[-1].leaked = self._both - now
            await self._rise()

    @property
    def _both(self) -> int:
        return self.crossed["up"] + self.crossed["down"]

    async def _open(self) -> None:
        if self._door is None:
            self._door = _listener(self.port)
        if self._accepting is None:
            self._accepting = self._loop.create_task(self._accept(self._door))

    async def _rise(self) -> None:
        self._is_up.set()
        await self._open()

    async def _cut(self) -> None:
        """Reset all connections, and refuse new ones."""
        tasks = [*self._connections, *([self._accepting] if self._accepting else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._door is not None:
            self._door.close()
        self._door = self._accepting = None

    async def _accept(self, door: socket.socket) -> None:
        while True:
            await self._is_up.wait()
            client, _ = await self._loop.sock_accept(door)
            task = self._loop.create_task(self._connect(client))
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)

    async def _connect(self, client: socket.socket) -> None:
        broker = socket.socket()
        try:
            for end in (client, broker):
                _prepare(end)
            await self._loop.sock_connect(broker, ("127.0.0.1", self._broker))
            ways = self._carry(client, broker, "up"), self._carry(broker, client, "down")
            pumps = [self._loop.create_task(way) for way in ways]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except OSError:
            pass  # the broker is not there: neither is the connection
        finally:
            client.close()
            broker.close()

    async def _carry(self, here: socket.socket, there: socket.socket, way: Way) -> None:
        while piece := await self._loop.sock_recv(here, PIECE):
            now = self._loop.time()
            start = max(now, self._free[way])
            self._free[way] = start + len(piece) / self.rate
            await asyncio.sleep(start - now)
            await self._is_up.wait()
            self.crossed[way] += len(piece)
            await self._loop.sock_sendall(there, piece)


def _listener(port: int) -> socket.socket:
    door = socket.socket()
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    door.bind(("127.0.0.1", port))
    door.listen(16)
    door.setblocking(False)
    return door


def _prepare(end: socket.socket) -> None:
    end.setblocking(False)
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for buffer in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        end.setsockopt(socket.SOL_SOCKET, buffer, BUFFER)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close = reset
