"""What are the processes that faults strike? Each is started, struck, and known by its identity."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from standing import stand, stands

from hermes.broker.control import Child
from hermes.broker.process import identity

DYING = 10.0
"""Seconds within which a killed process is gone."""


class Actor(Protocol):
    """Something that can be started, and dies."""

    name: str

    def start(self) -> None:
        """Begin to start it; may return before it is up."""

    def pid(self) -> int:
        """Of the process that runs; 0 while none does."""

    def ended(self) -> int | None:
        """Its exit code, once it has ended."""

    def tail(self) -> str:
        """The end of what it said."""

    def close(self) -> None:
        """End it, however it stands."""


class Command:
    """`hermes ...` as a process of its own, its output in a file."""

    def __init__(self, name: str, folder: Path, environment: Mapping[str, str]) -> None:
        self.name, self.arguments = name, ["--help"]
        self._folder, self._environment = folder, dict(environment)
        self._output = folder / "out" / f"{name}.out"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._output.parent.mkdir(exist_ok=True)
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "hermes", *self.arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._folder,
                env=self._environment,
                start_new_session=True,
            )

    def pid(self) -> int:
        process = self._process
        return process.pid if process is not None and process.poll() is None else 0

    def ended(self) -> int | None:
        return self._process.poll() if self._process is not None else None

    def tail(self) -> str:
        return self.said()[-1500:]

    def said(self) -> str:
        """All of its output, of all its lives."""
        with suppress(OSError):
            return self._output.read_bytes().decode("utf-8", "replace")
        return ""

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            for sign in (signal.SIGKILL, signal.SIGCONT):
                with suppress(ProcessLookupError):
                    self._process.send_signal(sign)
            self._process.wait(DYING)


FAST_START = ("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1")
"""What a JVM is told by its environment: compile quickly. It starts with two thirds of the CPU
time, and nobody measures its throughput here."""


class Broker:
    """Apache Kafka on one port and data folder, the child of a thread of its own: it goes with us,
    however we end."""

    name = "broker"

    def __init__(self, folder: Path, port: int, advertise: str | None = None) -> None:
        self._data, self._port, self._advertise = folder, port, advertise
        self._child: Child | None = None
        self._failed: BaseException | None = None
        self._todo: queue.SimpleQueue[bool] = queue.SimpleQueue()
        os.environ.setdefault(*FAST_START)
        self._thread = threading.Thread(target=self._keep, name="broker-keeper", daemon=True)
        self._thread.start()

    def start(self) -> None:
        old, self._child = self._child, None
        if old is not None:
            old.stop()
        self._todo.put(True)

    def pid(self) -> int:
        if self._failed is not None:
            raise self._failed
        child = self._child
        return child.pid if child is not None and child.alive() else 0

    def ended(self) -> int | None:
        child = self._child
        return None if child is None or child.alive() else -signal.SIGKILL

    def tail(self) -> str:
        child = self._child
        return child.log.read_text("utf-8")[-1500:] if child is not None else ""

    def close(self) -> None:
        self._todo.put(False)
        self._thread.join(60 + DYING)
        if os.environ.get(FAST_START[0]) == FAST_START[1]:
            del os.environ[FAST_START[0]]
        if self._child is not None:
            self._child.kill()
            self._child.stop()

    def _keep(self) -> None:
        while self._todo.get():
            try:
                self._child = Child(
                    "apache", self._port, advertise=self._advertise, data=self._data
                )
            except BaseException as error:  # noqa: BLE001  (raised by whoever asks for the pid)
                self._failed = error


def kill(actor: Actor) -> tuple[int, str]:
    """SIGKILL to a process that lives; returns its pid and identity. Raises `AssertionError` where
    it did not live right before, or lives right after."""
    pid, born = _alive(actor)
    os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + DYING
    while actor.ended() is None and time.monotonic() < end:
        time.sleep(0.002)
    assert actor.ended() == -signal.SIGKILL, f"{actor.name} ended with {actor.ended()}"
    assert identity(pid) != born, f"process {pid} of {actor.name} lives after its kill"
    return pid, born


def pause(actor: Actor) -> tuple[int, str]:
    """SIGSTOP to a process that lives."""
    pid, born = _alive(actor)
    stand(pid)
    assert identity(pid) == born
    return pid, born


def go_on(actor: Actor, pid: int, born: str) -> None:
    """SIGCONT to a process that has stood until now."""
    assert identity(pid) == born, f"{actor.name} did not outlive its pause"
    assert stands(pid), f"process {pid} of {actor.name} did not stand until its pause was over"
    os.kill(pid, signal.SIGCONT)


def _alive(actor: Actor) -> tuple[int, str]:
    pid = actor.pid()
    born = identity(pid) if pid else None
    assert pid, f"{actor.name} does not run"
    assert born, f"process {pid} of {actor.name} does not live"
    return pid, born


def environment(folder: Path, more: Sequence[tuple[str, str]] = ()) -> dict[str, str]:
    """Ours, without what a person has set, and with places below this folder."""
    plain = {key: text for key, text in os.environ.items() if not key.startswith("HERMES_")}
    places = {f"HERMES_{key}": str(folder / key.lower()) for key in ("CONFIG", "STATE", "CACHE")}
    return {**plain, **places, **dict(more)}
