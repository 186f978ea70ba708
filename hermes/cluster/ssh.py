"""How is a node reached? One SSH connection: checked host key, keys or agent, commands and files.

A command runs in `sh`, whatever the user's own shell is. It is sent as text on its standard input,
so nothing of it stands in the node's list of processes, and it ends there when the connection ends
here, whether by Ctrl-C or because the link broke: what was half done is done again, never twice at
the same time. A connection that breaks is made anew once; what ran then runs again, so it has to be
something that may be done twice.
"""

from __future__ import annotations

import contextlib
import logging
import shlex
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hermes.cluster import hostkey
from hermes.cluster.faults import plain
from hermes.errors import NodeError, UsageError
from hermes.extra import REMEDY

if TYPE_CHECKING:
    import paramiko

PATIENCE = 10.0
"""Seconds to connect, and as many to be let in."""

KEEPALIVE = 5
"""Seconds between two signs of life on a silent connection: one that is lost is noticed."""

LOST = 20_000
"""Milliseconds after which a link on which nothing comes through any more is given up."""

LONGEST = 3600.0
"""Seconds that one command may take: a framework over a thin link."""

LOOK = 0.01
"""Seconds between two looks at what a command says."""

PIECE = 1 << 16

NUMBER = 20
"""Bytes within which the number of a process has ended."""

MOST = 16 << 20
"""Bytes that a command may say: more is no answer."""

SILENCE = 3.0
"""Seconds without a word after which a command that has ended is not listened to any more: what it
left in the background may hold its output open for ever."""

# The watcher ends the whole process group when the connection is gone: its end of the pipe closes.
# Its number is told first, for a link that breaks without the node noticing. All of it is one
# command in braces: sh has read it to its end before it begins, so that nothing is left on its
# standard input that the watcher could take away from it.
_SCRIPT = """\
{{
echo "$$" >&2
main() {{
:
{text}
}}
exec 3<&0
{{ cat <&3 >/dev/null; kill -TERM 0; }} >/dev/null 2>&1 &
watcher=$!
(main) </dev/null 3<&-
code=$?
kill "$watcher" 2>/dev/null
exit "$code"
}}
"""

_END = """\
tr '\\0' ' ' </proc/{pid}/cmdline 2>/dev/null | grep -q '^sh -s' && kill -TERM -{pid}; true
"""

_DRAFT = """\
umask 077
rm -f {draft}
cat >{draft} && [ "$(wc -c <{draft})" -eq {size} ] && chmod {mode} {draft} && mv -f {draft} {path}
"""


class Target(NamedTuple):
    """Where to, and as whom."""

    name: str
    host: str
    user: str
    port: int = 22
    key: Path | None = None
    """A private key's file; None: the agent's, and the default ones in ~/.ssh."""
    fingerprint: str | None = None

    @property
    def place(self) -> str:
        """As a person would type it."""
        return f"{self.user}@{self.host}" + (f":{self.port}" if self.port != 22 else "")


class Said(NamedTuple):
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def last(self) -> str:
        """Its last words."""
        lines = [line.strip() for line in (self.err.strip() or self.out.strip()).splitlines()]
        return plain("; ".join([line for line in lines if line][-3:]), 500)


class Interrupted(Exception):
    """Somebody wants us to stop (Ctrl-C)."""


class NotSpoken(NodeError):
    """What answers and we have no SSH in common."""


class Dropped(Exception):
    """The connection broke while something ran."""


class Shell:
    """A connection to a node; a context manager. Used by one thread."""

    def __init__(
        self,
        target: Target,
        stop: threading.Event | None = None,
        tell: Callable[[str], None] = lambda _text: None,
    ) -> None:
        """Connects. `stop`, once set, makes whatever runs raise `Interrupted`; `tell` hears that a
        connection is made anew. Raises `NodeError`, `UsageError`."""
        self.target, self._stop, self._tell = target, stop or threading.Event(), tell
        self._again, self._script = 1, 0
        self._client = _connected(target, self._stop)

    def run(
        self,
        text: str,
        *,
        tell: Callable[[str], None] | None = None,
        timeout: float = LONGEST,
    ) -> Said:
        """Run these lines of `sh`; `tell` is given each line that it prints, as it comes. Raises
        `NodeError` where the node cannot be reached any more, or takes too long."""
        script = _SCRIPT.format(text=text).encode()
        return self._reliably(lambda: self._once("exec sh -s", script, False, tell, timeout))

    def do(self, text: str, what: str, *, timeout: float = LONGEST) -> str:
        """As `run`; what it printed. Raises `NodeError` if it fails; `what` was tried."""
        said = self.run(text, timeout=timeout)
        if said.code:
            raise self.failed(what, said)
        return said.out

    def put(self, data: bytes, path: str, mode: int = 0o600) -> None:
        """A file with these bytes: whole or not at all, and at no moment readable by others."""
        text = _DRAFT.format(
            draft=shlex.quote(f"{path}.draft"), path=quoted(path), size=len(data), mode=f"{mode:o}"
        ).replace(shlex.quote(f"{path}.draft"), quoted(f"{path}.draft"))
        command = f"exec sh -c {shlex.quote(text)}"
        said = self._reliably(lambda: self._once(command, data, True, None, LONGEST))
        if said.code:
            raise self.failed(f"{path} cannot be written", said)

    def failed(self, what: str, said: Said, remedy: str = "") -> NodeError:
        """The error for a command that has failed."""
        told = said.last
        return NodeError(
            f"{what}: {told}" if told else f"{what} (exit code {said.code})",
            where=self.target.name,
            remedy=remedy or _remedy_of(told),
        )

    def close(self) -> None:
        """Leave."""
        self._client.close()

    def __enter__(self) -> Shell:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _reliably(self, act: Callable[[], Said]) -> Said:
        while True:
            try:
                return act()
            except Dropped as error:
                self._client.close()
                if not self._again:
                    raise NodeError(
                        f"the SSH connection broke twice ({error})",
                        where=self.target.name,
                        remedy="Is its network, or its power, unsteady? The same command goes on "
                        "where this one was.",
                    ) from None
                self._again -= 1
                self._tell("the SSH connection broke; connecting again")
                self._client = _connected(self.target, self._stop)
                if self._script:
                    ending = f"exec sh -c {shlex.quote(_END.format(pid=self._script))}"
                    self._once(ending, b"", True, None, PATIENCE)

    def _once(
        self,
        command: str,
        data: bytes,
        ends: bool,
        tell: Callable[[str], None] | None,
        timeout: float,
    ) -> Said:
        with _dropping(), self._channel() as channel:
            channel.exec_command(command)
            reading = _Reading(self.target.name, channel, tell, numbered=not ends)
            self._script = 0
            until = time.monotonic() + timeout
            sent = 0
            while True:
                self._look(until, timeout)
                busy = reading.look()
                self._script = reading.number
                if sent < len(data) and channel.send_ready():
                    sent += channel.send(data[sent : sent + PIECE])
                    busy = True
                    if sent == len(data) and ends:
                        channel.shutdown_write()
                if busy:
                    continue
                if channel.exit_status_ready():
                    self._drain(reading, channel, until)
                    break
                if channel.closed or not self._alive():
                    raise Dropped("it ended")
                time.sleep(LOOK)
            code = channel.recv_exit_status()
        if code == -1:  # it ended by a signal, or the connection did
            if not self._alive():
                raise Dropped("it ended")
            code = 255
        return Said(code, reading.out, reading.err)

    def _drain(self, reading: _Reading, channel: paramiko.Channel, until: float) -> None:
        """It has ended: take what is still under way, up to a silence."""
        heard = time.monotonic()
        while not channel.eof_received or reading.waits:
            if self._stop.is_set():
                raise Interrupted
            now = time.monotonic()
            if reading.look():
                heard = now
            elif channel.closed or not self._alive():
                if channel.eof_received or self._alive():
                    return
                raise Dropped("it ended")
            elif now > min(heard + SILENCE, until):
                return
            else:
                time.sleep(LOOK / 10)

    def _look(self, until: float, timeout: float) -> None:
        if self._stop.is_set():
            raise Interrupted
        if time.monotonic() > until:
            raise NodeError(
                f"a command has not ended within {timeout:g} s",
                where=self.target.name,
                remedy="Is the device overloaded, or does its disk or network not answer?",
            )

    def _alive(self) -> bool:
        transport = self._client.get_transport()
        return transport is not None and transport.is_active()

    @contextlib.contextmanager
    def _channel(self) -> Iterator[paramiko.Channel]:
        transport = self._client.get_transport()
        if transport is None or not transport.is_active():
            raise Dropped("it is closed")
        channel = transport.open_session(timeout=PATIENCE)
        try:
            yield channel
        finally:
            channel.close()


class _Reading:
    """What a command says, on both of its ways."""

    def __init__(
        self,
        name: str,
        channel: paramiko.Channel,
        tell: Callable[[str], None] | None,
        *,
        numbered: bool,
    ) -> None:
        """`numbered`: its first error line is the number of its process."""
        self._name, self._channel, self._tell, self._numbered = name, channel, tell, numbered
        self.number = 0
        self._first = bytearray()
        self._out, self._err, self._line = bytearray(), bytearray(), bytearray()

    def look(self) -> bool:
        """Take what is there; whether there was anything. Raises `NodeError` for a flood."""
        busy = False
        if self._channel.recv_ready():
            self._take(self._out, self._channel.recv(PIECE))
            busy = True
        if self._channel.recv_stderr_ready():
            self._take(self._err, self._channel.recv_stderr(PIECE))
            busy = True
        return busy

    @property
    def waits(self) -> bool:
        """Whether something is there to be taken."""
        return bool(self._channel.recv_ready() or self._channel.recv_stderr_ready())

    @property
    def out(self) -> str:
        return self._out.decode("utf-8", "replace")

    @property
    def err(self) -> str:
        return self._err.decode("utf-8", "replace")

    def _take(self, into: bytearray, data: bytes) -> None:
        if self._numbered and into is self._err:
            self._first += data
            line, end, data = bytes(self._first).partition(b"\n")
            if not end and len(line) < NUMBER:
                return
            self._numbered = False
            if line.isdigit():
                self.number = int(line)
            else:  # it is no number: something speaks before our script does
                data = line + end + data
        into += data
        if len(into) > MOST:
            raise NodeError(
                f"a command says more than {MOST >> 20} MiB",
                where=self._name,
                remedy="Does its shell, or a program there, repeat something for ever?",
            )
        if self._tell is None:
            return
        self._line += data
        *whole, rest = bytes(self._line).split(b"\n")
        self._line = bytearray(rest)
        for line in whole:
            self._tell(line.decode("utf-8", "replace").rstrip())


def quoted(path: str) -> str:
    """A path for `sh`; a leading `~/` is the user's home there."""
    if path == "~":
        return '"$HOME"'
    if path.startswith("~/"):
        return '"$HOME"/' + shlex.quote(path[2:])
    return shlex.quote(path)


# --- connecting -----------------------------------------------------------------------------------


KINDS = (
    ("ssh-ed25519",),
    ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"),
    ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa"),
)
"""Of host keys: a server may have one of each."""


def _connected(target: Target, stop: threading.Event) -> paramiko.SSHClient:
    _library()
    _check_key_file(target)
    identity = hostkey.Identity(target.name, target.host, target.port, target.fingerprint)
    try:
        client = _try(target, stop, identity)
    except hostkey.Changed as error:
        if identity.fingerprint is None:
            raise
        client = _of_another_kind(target, stop, identity, error)
    transport = client.get_transport()
    assert transport is not None
    transport.set_keepalive(KEEPALIVE)
    return client


def _of_another_kind(
    target: Target, stop: threading.Event, identity: hostkey.Identity, error: hostkey.Changed
) -> paramiko.SSHClient:
    """The fingerprint does not say of which kind its key is: the server may have several, and shows
    one. Raises `error` where none is it."""
    for kinds in KINDS:
        try:
            return _try(target, stop, identity, kinds)
        except hostkey.Changed:
            continue
        except NotSpoken:  # it has none of this kind
            continue
    raise error


def _try(
    target: Target,
    stop: threading.Event,
    identity: hostkey.Identity,
    kinds: tuple[str, ...] = (),
) -> paramiko.SSHClient:
    """Connect once. `kinds`: of the host key; empty for any. Raises `NodeError`, `UsageError`."""
    paramiko = _library()
    sock = _socket(target, stop)
    client = paramiko.SSHClient()
    try:
        client.set_missing_host_key_policy(_Checking(identity))
        client.connect(
            target.host,
            target.port,
            target.user,
            sock=sock,
            transport_factory=_transport_for(identity, kinds),
            key_filename=str(target.key.expanduser()) if target.key else None,
            look_for_keys=target.key is None,
            timeout=PATIENCE,
            banner_timeout=PATIENCE,
            auth_timeout=PATIENCE,
            channel_timeout=PATIENCE,
        )
    except BaseException as error:
        client.close()
        sock.close()
        if isinstance(error, NodeError | UsageError):
            raise
        trouble = _not_let_in(target, error)
        if trouble is None:
            raise
        raise trouble from None
    return client


def _library() -> Any:
    try:
        import paramiko
    except ImportError:
        raise UsageError(
            "SSH needs the library paramiko, which is not installed here",
            remedy=REMEDY,
        ) from None
    logger = logging.getLogger("paramiko")  # what goes wrong is told by us, once
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    return paramiko


def _check_key_file(target: Target) -> None:
    if target.key is None:
        return
    path = target.key.expanduser()
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise UsageError(
            f"the SSH key cannot be read: {error.strerror or error}",
            where=f"{target.name}: {path}",
            remedy="Mend key in conf/config.json, or leave it out: then the agent's keys and the "
            "default ones in ~/.ssh are tried.",
        ) from None
    if mode & 0o077:
        raise UsageError(
            "the SSH key can be read by others",
            where=f"{target.name}: {path}",
            remedy=f"Take that away: chmod 600 {path}",
        )


def _socket(target: Target, stop: threading.Event) -> socket.socket:
    """A connection to the port. Raises `NodeError`: the name, a refusal, or no answer."""
    if stop.is_set():
        raise Interrupted
    where = f"{target.name} ({target.host}:{target.port})"
    try:
        made = socket.create_connection((target.host, target.port), timeout=PATIENCE)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, LOST)
        return made
    except socket.gaierror:
        what = f"the name {target.host!r} does not resolve"
        remedy = "Check host in conf/config.json, or give its address in digits."
    except ConnectionRefusedError:
        what = f"nothing listens at port {target.port} (connection refused)"
        remedy = "Does an SSH server run there, and is port in conf/config.json its port?"
    except TimeoutError:
        what = f"it does not answer within {PATIENCE:g} s"
        remedy = "Is it switched on and in this network, and is host in conf/config.json right?"
    except OSError as error:
        what = f"it cannot be reached: {error.strerror or error}"
        remedy = "Is it in this network, and is host in conf/config.json right?"
    raise NodeError(what, where=where, remedy=remedy) from None


class _Checking:
    """The policy for every host key: none is taken that we have not checked."""

    def __init__(self, identity: hostkey.Identity) -> None:
        self._identity = identity

    def missing_host_key(self, _client: object, _place: str, key: paramiko.PKey) -> None:
        """paramiko knows no key itself, so each one comes here."""
        hostkey.check(self._identity, key)


def _transport_for(
    identity: hostkey.Identity, kinds: tuple[str, ...]
) -> Callable[..., paramiko.Transport]:
    """Asks the server for a key of a kind that it is known by here, if it has one; of one of these
    `kinds` alone, where some are given."""
    import paramiko

    known = set(hostkey.kinds_known(identity))
    if "ssh-rsa" in known:
        known |= {"rsa-sha2-256", "rsa-sha2-512"}

    def make(sock: Any, **settings: Any) -> paramiko.Transport:
        transport = paramiko.Transport(sock, **settings)
        options = transport.get_security_options()
        able = [kind for kind in options.key_types if not kinds or kind in kinds]
        options.key_types = sorted(able, key=lambda kind: kind not in known)
        return transport

    return make


def _not_let_in(target: Target, error: BaseException) -> NodeError | None:
    """Our error for one of the library's; None where it is none of those."""
    import paramiko

    where = f"{target.name} ({target.place})"
    if isinstance(error, paramiko.PasswordRequiredException):
        return NodeError(
            "the SSH key is protected by a passphrase, and the agent does not have it",
            where=where,
            remedy=f"Give it to the agent: ssh-add {target.key or ''}".rstrip(),
        )
    if isinstance(error, paramiko.BadAuthenticationType):
        return NodeError(
            f"it lets nobody in by key: it takes {', '.join(error.allowed_types)}",
            where=where,
            remedy="Hermes stores no passwords. Allow keys there (PubkeyAuthentication yes), then: "
            f"{_copy_id(target)}",
        )
    nothing_to_try = "No authentication methods" in str(error)
    if isinstance(error, paramiko.AuthenticationException) or nothing_to_try:
        tried = f"the key {target.key}" if target.key else "the agent's keys and those in ~/.ssh"
        return NodeError(
            f"it does not let the user {target.user!r} in with {tried}",
            where=where,
            remedy=f"Is user in conf/config.json right? If so, bring your key there: "
            f"{_copy_id(target)}",
        )
    if isinstance(error, paramiko.SSHException | EOFError | OSError):
        return NotSpoken(
            f"what answers does not become an SSH connection: {error or type(error).__name__}",
            where=where,
            remedy="Is port in conf/config.json that of its SSH server, and is the server well?",
        )
    return None


def _copy_id(target: Target) -> str:
    key = f"-i {target.key} " if target.key else ""
    port = f"-p {target.port} " if target.port != 22 else ""
    return f"ssh-copy-id {key}{port}{target.user}@{target.host}"


@contextlib.contextmanager
def _dropping() -> Iterator[None]:
    """The library's errors while something runs mean that the connection is gone."""
    import paramiko

    try:
        yield
    except (paramiko.SSHException, EOFError, OSError) as error:
        raise Dropped(str(error) or type(error).__name__) from None


def _remedy_of(said: str) -> str:
    """What to do about what a command complained of."""
    for sign, remedy in REMEDIES.items():
        if sign in said:
            return remedy
    return ""


REMEDIES = {
    "No space left": "Make room on its disk (df -h there), then the same command goes on.",
    "Disk quota": "Make room within the user's quota there.",
    "Read-only file system": "Its file system is read-only: name another folder for the node in "
    "conf/config.json, or remount it.",
    "Permission denied": "The user may not write there: name another folder for the node in "
    "conf/config.json, or another user.",
}
"""What a command said -> what to do about it."""
