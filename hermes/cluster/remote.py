"""What is done on one node? A list of steps: what each does, with which command, and how to see
that it is done already.

Steps are data: `hermes up` performs those that are not done, `--dry-run` prints them, and doing one
twice is as doing it once. All that Hermes has on a node lies in one folder, which a marker tells
from a folder of somebody else's:

    venv/  wheels/  state/  cache/  worker.sh  worker.log  worker.pid
    cluster.key  access.json  ca.pem  NAME.password                       (nobody else may read)
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Sequence
from typing import NamedTuple

from hermes.cluster.conf import Node
from hermes.cluster.faults import plain
from hermes.cluster.snippets import BESIDE, BORROW, BUNDLED, RECENT, SEES
from hermes.cluster.ssh import Said, Shell, quoted
from hermes.cluster.wheel import Wheel
from hermes.errors import NodeError

MARKER = ".hermes-node"

STARTING = 30.0
"""Seconds that a worker may take until it has reached its broker."""

LOOK = 0.2
"""Seconds between two looks: each takes some processes, which a small board feels."""

LEAVING = 12.0
"""Seconds that a worker has to say bye."""

RETRIES, ANSWERING = 2, 10
"""How often pip asks an index again, and seconds that it gives it to answer."""

NOT_OURS, TOO_OLD, NO_PYTHON, NO_PIP, NOT_UP, TAKEN, NO_INDEX = 41, 42, 43, 44, 45, 46, 47
"""Exit codes of our commands there that have words of their own."""


class File(NamedTuple):
    """A file for a node."""

    name: str
    """Within the node's folder."""
    data: bytes
    mode: int = 0o600

    @property
    def digest(self) -> str:
        """SHA-256, hex."""
        return hashlib.sha256(self.data).hexdigest()


class Step(NamedTuple):
    """One thing that is done."""

    doing: str
    """In a word or two, for a table: `installing`."""
    what: str
    """In a sentence, for a person: `make the virtual environment ~/.hermes-edge/venv`."""
    done: str
    """`sh` whose exit code says whether it is done already."""
    command: str = ":"
    """`sh` that does it ..."""
    files: tuple[File, ...] = ()
    """... after these were sent."""
    folder: str = ""
    """Where to."""


class Worker(NamedTuple):
    """What a node's worker is started with."""

    node: Node
    broker: str
    """HOST:PORT, as nodes are told."""
    installed: str
    """What tells one installation from another."""
    secrets: tuple[File, ...]


def digest(*parts: str) -> str:
    """What tells these from others."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


# --- performing -----------------------------------------------------------------------------------


def pending(shell: Shell, steps: Sequence[Step]) -> list[Step]:
    """Those that are not done, seen in one go. Raises `NodeError`."""
    tests = "\n".join(
        f"if (\n{step.done}\n) >/dev/null 2>&1; then echo done; else echo open; fi"
        for step in steps
    )
    said = shell.do(f"{HELPERS}\n{tests}", "the node's state cannot be seen", timeout=120)
    answers = said.split()
    if len(answers) != len(steps):
        raise NodeError(
            f"it answers what nobody asked: {plain(said.strip())}",
            where=shell.target.name,
            remedy="Does its shell print something at the start of every session?",
        )
    return [step for step, answer in zip(steps, answers, strict=True) if answer == "open"]


def perform(shell: Shell, node: Node, step: Step) -> Said:
    """Do it, unless somebody else has done it meanwhile. Raises `NodeError`."""
    for file in step.files:
        shell.put(file.data, f"{step.folder}/{file.name}", file.mode)
    again = f"if (\n{step.done}\n) >/dev/null 2>&1; then exit 0; fi\n" if not step.files else ""
    said = shell.run(f"{HELPERS}\nhold {folder_of(node)}\n{again}set -e\n{step.command}")
    if said.code:
        raise trouble(shell, step, said)
    return said


def trouble(shell: Shell, step: Step, said: Said) -> NodeError:
    """What went wrong there, in words."""
    known = WORDS.get(said.code)
    if known is None:
        return shell.failed(f"it cannot {step.what}", said)
    what, remedy = known
    told = said.last if said.code == NOT_UP else plain(said.out.strip() or said.err.strip())
    return NodeError(what.format(told=told), where=shell.target.name, remedy=remedy)


WORDS = {
    NOT_OURS: (
        "its folder {told} holds things that Hermes has not put there",
        "Name a folder of its own for this node in conf/config.json.",
    ),
    NO_PYTHON: (
        "it has no Python that runs: {told}",
        "Install Python 3.10 or newer there, or name the one to use: python in conf/config.json.",
    ),
    TOO_OLD: (
        "its Python is {told}, and Hermes needs 3.10 or newer",
        "Install a newer one there, and name it: python in conf/config.json.",
    ),
    NO_PIP: (
        "its Python can install nothing: it has neither pip nor ensurepip",
        "There: sudo apt-get install python3-venv",
    ),
    TAKEN: (
        "another hermes up or down works on it just now (its process {told} there)",
        "Wait until that one has ended, then the same command goes on.",
    ),
    NO_INDEX: (
        "no package index can be reached from it",
        "Does it have a network? Otherwise fill a folder of wheels where there is internet, and "
        'name it: "wheels" in conf/master.json.',
    ),
    NOT_UP: (
        "its worker does not come up: {told}",
        "The whole story is in worker.log in its folder.",
    ),
}

# sha256sum is GNU's and busybox's, shasum is Perl's, which macOS has.
HELPERS = r"""
sums() { if command -v sha256sum >/dev/null; then sha256sum -c - ; else shasum -a 256 -c -; fi; }
is() {  # FILE WORDS: does the process whose number it holds run, with these words?
  it=$(cat "$1" 2>/dev/null) && [ -n "$it" ] || return 1
  if [ -r "/proc/$it/cmdline" ]; then tr '\0' ' ' <"/proc/$it/cmdline" | grep -q -e "$2"
  else ps -p "$it" -o command= 2>/dev/null | grep -q -e "$2"; fi
}
guarded() { is "$1" worker.sh; }  # PIDFILE: is there who starts the worker again when it ends?
bare() { is "$1.child" 'hermes worker '; }  # PIDFILE: does the worker itself run?
runs() { guarded "$1" || bare "$1"; }
leave() {  # PIDFILE SECONDS: the worker says bye, or is ended
  if guarded "$1"; then kill -TERM "$it" 2>/dev/null; elif bare "$1"; then kill -TERM "$it"; fi
  i=0
  while runs "$1" && [ "$i" -lt $(($2 * 10)) ]; do sleep 0.1; i=$((i + 1)); done
  if guarded "$1"; then kill -KILL "$it" 2>/dev/null; fi
  if bare "$1"; then kill -KILL "$it" 2>/dev/null; fi
  rm -f "$1" "$1.child"
}
hold() {  # FOLDER: nobody else works on it while we do; one that has ended holds nothing
  [ -f "$1/.hermes-node" ] || return 0
  i=0
  until ln -s "$$" "$1/.lock" 2>/dev/null; do
    readlink "$1/.lock" >"$1/.owner.$$" || :
    if ! is "$1/.owner.$$" '^sh -s'; then rm -f "$1/.lock"; i=$((i + 1))
    else sleep 0.1; i=$((i + 1)); fi
    rm -f "$1/.owner.$$"
    if [ "$i" -gt 50 ]; then echo "${it:-nobody}"; exit TAKEN; fi
  done
  held=$1/.lock
  trap 'rm -f "$held"' EXIT
}
""".replace("TAKEN", str(TAKEN))


# --- installing -----------------------------------------------------------------------------------


def folder_of(node: Node) -> str:
    """The node's folder, as `sh` takes it."""
    return quoted(node.folder.rstrip("/"))


def installing(node: Node, wheel: Wheel, wheels: Sequence[File]) -> list[Step]:
    """From nothing to an installed Hermes: our wheel, and what it needs from `wheels`, where there
    are some, or from the index that pip uses there."""
    at, needs = folder_of(node), needed(node, wheel, wheels)
    return [
        _folder(node, at),
        *_sending(node, at, wheel, wheels),
        _environment(node, at),
        _requirements(node, at, wheel, needs, offline=bool(wheels)),
        _hermes(node, at, wheel),
    ]


def needed(node: Node, wheel: Wheel, wheels: Sequence[File]) -> str:
    """What tells one set of packages from another."""
    sent = [f"{file.name} {file.digest}" for file in wheels]
    return digest(*wheel.requirements, "extras", *sorted(node.extras), node.packages, *sent)


def installed(node: Node, wheel: Wheel, wheels: Sequence[File]) -> str:
    """What tells one installation from another."""
    return digest(wheel.digest, needed(node, wheel, wheels), node.python, node.packages)


def _folder(node: Node, at: str) -> Step:
    return Step(
        "making its folder",
        f"make the folder {node.folder}",
        f"[ -f {at}/{MARKER} ] && [ -d {at}/wheels ] && [ -w {at} ]",
        f"""\
if [ -e {at} ] && [ ! -f {at}/{MARKER} ] && [ -n "$(ls -A {at})" ]; then
  echo {at}; exit {NOT_OURS}
fi
mkdir -p {at}
chmod 700 {at}
mkdir -p {at}/wheels {at}/state {at}/cache
: >{at}/{MARKER}""",
    )


def _sending(node: Node, at: str, wheel: Wheel, wheels: Sequence[File]) -> list[Step]:
    """Ours apart: it changes more often than the others."""
    ours = (File(wheel.name, wheel.data, 0o644),)
    others = tuple(file for file in wheels if file.name != wheel.name)
    every = "|".join(shlex.quote(file.name) for file in (*ours, *others))
    tidy = f"""\
cd {at}/wheels  # what lies there beside them is of another day
for file in *; do case $file in {every}) ;; *) rm -f "$file" ;; esac; done"""
    steps = []
    for what, files in ((f"{len(others)} wheels", others), (wheel.name, ours)):
        size = sum(len(file.data) for file in files)
        step = Step(
            "sending packages",
            f"send {what} ({size / 1e6:.1f} MB)",
            f"cd {at}/wheels && {_check(files)}",
            tidy,
            files,
            f"{node.folder.rstrip('/')}/wheels",
        )
        steps += [step] if files else []
    return steps


def _check(files: Sequence[File]) -> str:
    lines = " ".join(shlex.quote(f"{file.digest}  {file.name}") for file in files)
    return f"printf '%s\\n' {lines} | sums"


def _environment(node: Node, at: str) -> Step:
    python, system = quoted(node.python), node.packages == "system"
    sees = "--system-site-packages " if system else ""
    made = shlex.quote(f"{node.python} {node.packages}")
    borrow = f"{python} -c {shlex.quote(BORROW)} {at}/venv\n" if system else ""
    version = '"%d.%d" % sys.version_info[:2]'
    return Step(
        "making the venv",
        f"make the virtual environment {node.folder}/venv"
        + (" (it sees the system's packages)" if system else ""),
        f"""\
[ "$(cat {at}/venv/.made)" = {made} ] &&
[ "$({at}/venv/bin/python -c 'import sys; print({version})')" = \
"$(sed -n 's/^version = \\([0-9]*\\.[0-9]*\\).*/\\1/p' {at}/venv/pyvenv.cfg)" ]""",
        f"""\
said=$({python} -c 'import sys; print({version})' 2>&1) || {{
  echo "$said"; exit {NO_PYTHON}
}}
version=$(printf '%s\n' "$said" | tail -n 1)
case $version in [012].* | 3.[0-9]) echo "$version"; exit {TOO_OLD} ;; esac
rm -rf {at}/venv
{python} -m venv --without-pip {sees}{at}/venv
{borrow}printf %s {made} >{at}/venv/.made""",
    )


def _requirements(node: Node, at: str, wheel: Wheel, needs: str, *, offline: bool) -> Step:
    extras = f"[{','.join(node.extras)}]" if node.extras else ""
    source = (
        "--no-index --find-links wheels"
        if offline
        else f"--prefer-binary --retries {RETRIES} --timeout {ANSWERING}"
    )
    python = quoted(node.python)
    place = "the wheels that were sent" if offline else "the package index"
    return Step(
        "installing packages",
        f"install what Hermes{extras} needs, from {place}",
        f'[ "$(cat {at}/venv/.needs)" = {needs} ]',
        f"""\
cd {at}
rm -f venv/.needs venv/.hermes
{_unpack(wheel)}
beside=$({python} -c '{BESIDE}' 2>/dev/null) || beside=
if venv/bin/python -c {shlex.quote(SEES)} {shlex.quote(",".join(node.extras))} "$beside" \
{"wheels" if offline else "''"} 2>/dev/null; then
printf %s {wheel.digest} >venv/.hermes
printf %s {needs} >venv/.needs
exit 0
fi
set -- install --quiet --no-input --no-compile --disable-pip-version-check \
--no-warn-script-location --progress-bar off {source} {shlex.quote(f"wheels/{wheel.name}{extras}")}
said=cache/pip.said code=0
mkdir -p cache
if {python} -c '{RECENT}' 2>/dev/null; then
  {python} -m pip --python venv/bin/python "$@" 2>"$said" || code=$?
elif pip=$({python} -c '{BUNDLED}' 2>/dev/null); then
  venv/bin/python "$pip/pip" "$@" 2>"$said" || code=$?
else exit {NO_PIP}; fi
if [ $code != 0 ]; then
  if grep -q 'after connection broken by' "$said" && grep -q 'versions: none' "$said"; then
    exit {NO_INDEX}
  fi
  cat "$said" >&2
  exit $code
fi
rm -f "$said"
printf %s {wheel.digest} >venv/.hermes
printf %s {needs} >venv/.needs""",
    )


def _unpack(wheel: Wheel) -> str:
    """Our own package is one folder of Python files: there is nothing to build or to resolve."""
    return f"""\
site=$(ls -d venv/lib/python*/site-packages)
rm -rf "$site/hermes" "$site"/hermes_edge-*
venv/bin/python -m zipfile -e {shlex.quote(f"wheels/{wheel.name}")} "$site"
printf '%s\\n' '#!/bin/sh' 'exec "$(dirname "$0")/python" -m hermes "$@"' >venv/bin/hermes
chmod 755 venv/bin/hermes"""


def _hermes(node: Node, at: str, wheel: Wheel) -> Step:
    return Step(
        "installing Hermes",
        f"unpack Hermes {wheel.version} into {node.folder}/venv",
        f'[ "$(cat {at}/venv/.hermes)" = {wheel.digest} ]',
        f"""\
cd {at}
if [ "$(cat venv/.hermes)" != {wheel.digest} ]; then  # it came with the packages
rm -f venv/.hermes
{_unpack(wheel)}
printf %s {wheel.digest} >venv/.hermes
fi""",
    )


# --- the worker -----------------------------------------------------------------------------------


def starting(worker: Worker) -> list[Step]:
    """Credentials, and the worker: one that runs already is left alone if nothing has changed."""
    node = worker.node
    at = folder_of(node)
    script = File("worker.sh", worker_script(worker).encode(), 0o700)
    stamp = digest(worker.installed, script.digest, *(file.digest for file in worker.secrets))
    names = ", ".join(file.name for file in worker.secrets)
    return [
        Step(
            "sending credentials",
            f"send {names} (mode 600)",
            f"cd {at} && {_check(worker.secrets)} && "
            + " && ".join(_private(file.name) for file in worker.secrets),
            files=worker.secrets,
            folder=node.folder.rstrip("/"),
        ),
        Step(
            "starting the worker",
            f"start the worker {node.name}"
            + (f" in the tmux session {session(node)}" if node.tmux else ""),
            f'[ "$(cat {at}/worker.stamp)" = {stamp} ] && guarded {at}/worker.pid',
            _start(node, at, stamp),
            (script,),
            node.folder.rstrip("/"),
        ),
    ]


def _private(name: str) -> str:
    return f'[ -z "$(find {shlex.quote(name)} -perm /077 2>/dev/null)" ]'


def session(node: Node) -> str:
    """The tmux session of its worker."""
    return f"hermes-{node.name}"


def worker_script(worker: Worker) -> str:
    """What runs on the node: a worker that is started again when it ends without having been asked
    to. It tells its log, and the tmux session that it may run in."""
    node = worker.node
    flags = ["--broker", worker.broker, "--name", node.name]
    if node.threads is not None:
        flags += ["--threads", str(node.threads)]
    if node.device is not None:
        flags += ["--device", node.device]
    access = "export HERMES_ACCESS=$PWD/access.json\n" if has_access(worker.secrets) else ""
    return f"""\
#!/bin/sh
# Written by hermes up: changes are lost.
cd "$(dirname "$0")" || exit 1
echo $$ >worker.pid
export HERMES_CONFIG=$PWD HERMES_STATE=$PWD/state HERMES_CACHE=$PWD/cache
{access}over= child=
trap 'over=1; [ -n "$child" ] && kill -TERM "$child" 2>/dev/null' TERM INT HUP
while [ -z "$over" ]; do
  venv/bin/python -m hermes worker --key-file cluster.key {shlex.join(flags)} &
  child=$!
  echo $child >worker.pid.child
  [ -n "$over" ] && kill -TERM "$child"
  wait "$child"; code=$?
  while kill -0 "$child" 2>/dev/null; do wait "$child"; code=$?; done
  if [ $code = 0 ] || [ $code = 130 ]; then break; fi
  [ -n "$over" ] && break
  sleep 3 & wait $!
done
rm -f worker.pid worker.pid.child
"""


def has_access(secrets: Sequence[File]) -> bool:
    """Whether there is a file that says how to get in."""
    return any(file.name == "access.json" for file in secrets)


def _start(node: Node, at: str, stamp: str) -> str:
    name = session(node)
    plain = (
        "if command -v setsid >/dev/null; then set -- setsid; else set -- nohup; fi\n"
        '"$@" ./worker.sh </dev/null >>worker.log 2>&1 &'
    )
    in_tmux = (
        f"tmux kill-session -t ={name} 2>/dev/null || :\n"
        f"tmux new-session -d -x 150 -y 50 -s {name} ./worker.sh \\; "
        f"pipe-pane -o -t {name} 'cat >>worker.log'"
    )
    if node.tmux:
        begin = f"if command -v tmux >/dev/null; then\n{in_tmux}\nelse\n{plain}\nfi"
    else:
        begin = plain
    return f"""\
cd {at}
leave worker.pid {LEAVING:.0f}
if [ -f worker.log ]; then mv -f worker.log worker.log.1; fi
umask 077
: >worker.log
rm -f worker.stamp
{begin}
i=0
until found=$(grep -o -m 1 -e ', waiting for' -e 'error: ' worker.log) &&
[ "$found" != 'error: ' ]; do
  i=$((i + 1))
  if [ $i -gt {STARTING / LOOK:.0f} ] || [ -n "$found" ] || \
{{ [ $i -gt {2 / LOOK:.0f} ] && ! runs worker.pid; }}; then
    sleep 0.3
    grep -A 3 'error: ' worker.log | head -n 3 >&2 || :
    [ -s worker.log ] || echo 'it says nothing' >&2
    grep -q 'error: ' worker.log || tail -n 3 worker.log >&2
    exit {NOT_UP}
  fi
  sleep {LOOK}
done
printf %s {stamp} >worker.stamp"""


# --- taking down ----------------------------------------------------------------------------------

SECRETS = ("cluster.key", "access.json", "ca.pem", "client.pem", "client.key")


def leaving(node: Node, *, purge: bool) -> list[Step]:
    """The worker says bye, its secrets go; `purge`: everything goes."""
    at, name = folder_of(node), session(node)
    names = [*SECRETS, f"{node.name}.password"]
    secrets = " ".join(f"{at}/{name}" for name in names)
    steps = [
        Step(
            "stopping the worker",
            f"stop the worker {node.name}, which says bye",
            f"! runs {at}/worker.pid" + (f" && ! tmux has-session -t ={name}" if node.tmux else ""),
            f"leave {at}/worker.pid {LEAVING:.0f}\n"
            + (f"tmux kill-session -t ={name} 2>/dev/null || :\n" if node.tmux else "")
            + f"rm -f {at}/worker.stamp",
        ),
        Step(
            "removing secrets",
            f"remove cluster key and credentials from {node.folder}",
            f'[ -z "$(ls -d {secrets} {at}/*.password {at}/*.draft 2>/dev/null)" ]',
            f"rm -f {secrets} {at}/*.password {at}/*.draft",
        ),
    ]
    if not purge:
        return steps
    return [
        *steps,
        Step(
            "removing everything",
            f"remove {node.folder}",
            f"[ ! -e {at} ]",
            f"if [ ! -f {at}/{MARKER} ]; then echo {at}; exit {NOT_OURS}; fi\nrm -rf {at}",
        ),
    ]
