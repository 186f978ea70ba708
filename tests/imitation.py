"""What would Docker make of a Dockerfile? Read for real, and built in overlays of this machine.

There is no engine here. Each stage is an overlay over this machine's own files, in a mount
namespace of the test's own: what a step writes is seen by the next ones and by nobody else. What a
step *lacks* is not noticed where this machine has it: a Debian with Python stands for the image.
Needs root, and overlays.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

KNOWN = {
    *("FROM", "ARG", "RUN", "COPY", "ENV", "WORKDIR", "USER"),
    *("CMD", "ENTRYPOINT", "HEALTHCHECK", "EXPOSE", "STOPSIGNAL", "LABEL", "VOLUME"),
}


class Step(NamedTuple):
    """One instruction."""

    word: str
    rest: str


class Stage(NamedTuple):
    """What stands between two FROM."""

    name: str
    base: str
    steps: tuple[Step, ...]


class Dockerfile(NamedTuple):
    """A whole file."""

    arguments: dict[str, str]
    """ARG before the first FROM."""
    stages: dict[str, Stage]


def read_dockerfile(text: str) -> Dockerfile:
    """Its stages. Raises `ValueError` for what is no instruction, or comes at a wrong place."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    whole = re.sub(r"\\\n", " ", "\n".join(lines))
    steps = [_step(line) for line in whole.splitlines() if line.strip()]
    arguments: dict[str, str] = {}
    stages: dict[str, Stage] = {}
    for step in steps:
        if step.word == "FROM":
            base, word, name = step.rest.split()
            if word.upper() != "AS" or name in stages:
                raise ValueError(f"FROM {step.rest}")
            stages[name] = Stage(name, expanded(base, arguments), ())
        elif stages:
            last = next(reversed(stages.values()))
            stages[last.name] = last._replace(steps=(*last.steps, step))
        elif step.word == "ARG":
            arguments.update([_pair(step.rest)])
        else:
            raise ValueError(f"{step.word} before the first FROM")
    return Dockerfile(arguments, stages)


def _step(line: str) -> Step:
    word, _, rest = line.strip().partition(" ")
    if word not in KNOWN:
        raise ValueError(f"no instruction: {line}")
    return Step(word, " ".join(rest.split()))


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value


def expanded(text: str, values: Mapping[str, str]) -> str:
    """With ${NAME} and ${NAME:-else} filled in. Raises `KeyError` for a name without a value."""

    def fill(match: re.Match[str]) -> str:
        name, otherwise = match["name"], match["otherwise"]
        return values[name] if otherwise is None else values.get(name) or otherwise

    return re.sub(r"\$\{(?P<name>\w+)(?::-(?P<otherwise>[^}]*)|:\?[^}]*)?\}", fill, text)


class Image(NamedTuple):
    """What a stage comes to."""

    root: Path
    """Its files, inside the namespace."""
    layers: tuple[Path, ...]
    """Its own folder first, this machine's last."""
    environment: dict[str, str]
    user: str
    folder: str
    entrypoint: list[str]
    command: list[str]
    health: list[str]


class Docker:
    """Builds stages and runs commands in them, in a namespace that ends with it."""

    def __init__(self, context: Path, environment: Mapping[str, str]) -> None:
        """`environment`: of the machine, for what fetches packages; an image has none of it."""
        self.context = context
        self.outside = dict(environment)
        self.place = Path(tempfile.mkdtemp(prefix="hermes-docker-"))
        self._keeper = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", f"{self._mounts()} && echo ready && exec sleep 900"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._keeper.stdout is not None
        if self._keeper.stdout.readline().strip() != "ready":
            self.close()
            raise OSError("no namespace of our own")
        self._inside = ["nsenter", f"--target={self._keeper.pid}", "--mount"]
        self.images: dict[str, Image] = {}

    def _mounts(self) -> str:
        return f"mount -t tmpfs none {self.place}"

    def close(self) -> None:
        """The namespace goes with its last process, and all that was written with it."""
        self._keeper.kill()
        self._keeper.communicate()
        shutil.rmtree(self.place, ignore_errors=True)

    def sh(self, script: str, *args: str) -> None:
        """A command in the namespace, outside of every image."""
        subprocess.run([*self._inside, "sh", "-euc", script, "sh", *args], check=True)

    def build(self, file: Dockerfile, name: str, arguments: Mapping[str, str]) -> Image:
        """The stage of that name, and before it those that it needs."""
        if name in self.images:
            return self.images[name]
        stage = file.stages[name]
        if stage.base in file.stages:
            image = self.build(file, stage.base, arguments)
        else:
            image = Image(Path("/"), (Path("/"),), {}, "0:0", "/", [], [], [])
        image = self._layer(name, image)
        values: dict[str, str] = {}
        if stage.base in file.stages:  # an ARG goes on in the stages that are built on it
            base = file.stages[stage.base]
            values = dict(self._arguments(base, arguments))
        for step in stage.steps:
            if step.word == "ARG":
                key, value = _pair(step.rest)
                values[key] = arguments.get(key, value)
            elif step.word == "COPY":
                self._copy(file, image, step.rest, arguments)
            elif step.word == "RUN":
                self.run(image, ["/bin/sh", "-c", step.rest], {**self.outside, **values})
            else:
                image = _set(image, step, values)
        self.images[name] = image
        return image

    @staticmethod
    def _arguments(stage: Stage, given: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        for step in stage.steps:
            if step.word == "ARG":
                key, value = _pair(step.rest)
                yield key, given.get(key, value)

    def _layer(self, name: str, below: Image) -> Image:
        """An overlay of its own above those of the image below."""
        home = self.place / name
        upper, work, root = home / "upper", home / "work", home / "root"
        lower = ":".join(map(str, below.layers))
        options = f"lowerdir={lower},upperdir={upper},workdir={work}"
        self.sh(
            'mkdir -p "$1" "$2" "$3"; mount -t overlay overlay -o "$4" "$3"; '
            'mount --rbind /dev "$3/dev"; mount -t tmpfs none "$3/dev/shm"; '
            'mount -t proc proc "$3/proc"; mount -t tmpfs none "$3/tmp"; '
            'chmod 1777 "$3/tmp" "$3/dev/shm"',
            *map(str, (upper, work, root)),
            options,
        )
        if below.root == Path("/"):  # the image's Python is found by everybody
            self._python(root)
        return below._replace(root=root, layers=(upper, *below.layers))

    def container(self, name: str, image: Image, mounts: Mapping[str, str]) -> Image:
        """Files of its own above an image's, which it cannot write but for its `mounts`: from a
        folder of this machine, or from "" for an empty one that all may write."""
        made = self._layer(f"container-{name}", image)
        for target, source in mounts.items():
            self.sh(
                'mkdir -p "$1"; if [ -n "$2" ]; then mount --bind "$2" "$1"; '
                'else mount -t tmpfs -o mode=1777 none "$1"; fi',
                f"{made.root}{target}",
                source,
            )
        self.sh('mount -o remount,ro "$1"', str(made.root))
        return made

    def _python(self, root: Path) -> None:
        """This machine's own Python stands where the image has it, for everybody."""
        home, version = Path(sys.base_prefix), f"python{sys.version_info[0]}.{sys.version_info[1]}"
        self.sh(
            'cd "$1/usr/local"; rm -rf "lib/$3"; mkdir -p bin lib; '
            'ln -sf "$2/bin/python3" bin/python; ln -s "$2/lib/$3" "lib/$3"',
            *map(str, (root, home, version)),
        )
        for folder in (*(home / "bin").parents, home / "bin"):
            self.sh('chmod a+x "$1$2"', str(root), str(folder))

    def _copy(self, file: Dockerfile, image: Image, rest: str, given: Mapping[str, str]) -> None:
        words = rest.split()
        start = self.context
        if words[0].startswith("--from="):
            start = self.build(file, words.pop(0).partition("=")[2], given).root
        *sources, target = words
        folder = target.endswith("/") or len(sources) > 1
        end = image.root / str(Path(image.folder) / target).lstrip("/")
        for source in sources:
            found = start / source.lstrip("/")
            # of a folder the contents are copied, not the folder
            self.sh(
                'if [ -d "$1" ]; then mkdir -p "$2"; cp -a --no-preserve=ownership "$1/." "$2/"; '
                'else mkdir -p "$3"; cp --preserve=mode "$1" "$3/"; fi',
                str(found),
                str(end),
                str(end if folder else end.parent),
            )

    def run(
        self,
        image: Image,
        command: list[str],
        environment: Mapping[str, str],
        user: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """A command in an image, to its end. Raises where it fails."""
        done = subprocess.run(
            self.command(image, command, environment, user),
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode:
            raise AssertionError(f"{shlex.join(command)}: {done.stdout}{done.stderr}")
        return done

    def command(
        self,
        image: Image,
        command: list[str],
        environment: Mapping[str, str],
        user: str | None = None,
    ) -> list[str]:
        """What starts a command in an image, as its user and with its environment alone."""
        path = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
        values = {"PATH": path, **environment, **image.environment}
        inside = f'cd {shlex.quote(image.folder)} && exec "$@"'
        return [
            *self._inside,
            *("env", "-i", *(f"{key}={value}" for key, value in values.items())),
            *(
                shutil.which("chroot") or "chroot",
                f"--userspec={user or image.user}",
                "--groups=",
                str(image.root),
            ),
            *("/bin/sh", "-c", inside, "sh", *command),
        ]


def _set(image: Image, step: Step, values: Mapping[str, str]) -> Image:
    """With what an instruction says of the image."""
    if step.word == "ENV":
        pairs = dict(_pair(word) for word in shlex.split(step.rest))
        return image._replace(environment={**image.environment, **pairs})
    if step.word == "WORKDIR":
        return image._replace(folder=step.rest)
    if step.word == "USER":
        return image._replace(user=expanded(step.rest, values))
    if step.word == "ENTRYPOINT":
        return image._replace(entrypoint=json.loads(step.rest))
    if step.word == "CMD":
        return image._replace(command=json.loads(step.rest))
    if step.word == "HEALTHCHECK":
        return image._replace(health=json.loads(step.rest.partition(" CMD ")[2]))
    return image


def lacking() -> str | None:
    """Why images cannot be imitated here; None if they can."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "needs root on Linux"
    if not all(map(shutil.which, ("unshare", "nsenter", "chroot"))):
        return "needs unshare, nsenter and chroot"
    with tempfile.TemporaryDirectory() as folder:
        script = (
            f"mount -t tmpfs none {folder} && mkdir {folder}/u {folder}/w {folder}/m && "
            f"mount -t overlay x -o lowerdir=/,upperdir={folder}/u,workdir={folder}/w {folder}/m"
        )
        with contextlib.suppress(OSError):
            tried = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True)
            return None if tried.returncode == 0 else "overlays cannot be mounted here"
    return "overlays cannot be mounted here"
