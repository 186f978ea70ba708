"""Which Python runs at a node while it is installed? Text for `python -c` there, of any version."""

from __future__ import annotations

# A python that is itself one of a virtual environment: its packages are the system's then.
BORROW = """\
import glob, os, sys
if sys.prefix != sys.base_prefix:
    own = glob.glob(os.path.join(sys.argv[1], "lib", "python*", "site-packages"))
    with open(os.path.join(own[0], "system.pth"), "w") as file:
        for path in sys.path:
            if path.startswith(sys.prefix) and path.endswith("-packages"):
                file.write(path + "\\n")
"""

ONLY = r";(?:(?!\bor\b).)*\bextra == .([\w.-]+).$"
"""A requirement of an extra alone. Most are such, and to parse them takes the longest."""

SEES = """\
import glob, importlib.metadata as metadata, os, re, sys, zipfile
sys.path.append(sys.argv[2])  # for pip's own library alone: what else lies there does not count
from pip._vendor.packaging.requirements import Requirement
from pip._vendor.packaging.tags import sys_tags
from pip._vendor.packaging.utils import canonicalize_name, parse_wheel_filename
sys.path.pop()
site = next(p for p in sys.path if p.startswith(sys.prefix) and p.endswith("-packages"))
fits = {tag: -rank for rank, tag in enumerate(sys_tags())} if sys.argv[3] else {}
wheels = {}
for path in glob.glob("wheels/*.whl") if sys.argv[3] else ():
    name, version, build, tags = parse_wheel_filename(os.path.basename(path))
    ranks = [fits[tag] for tag in tags if tag in fits]
    if ranks:
        wheels.setdefault(name, []).append((version, max(ranks), path))

def see(wanted):
    try:
        if wanted.specifier.contains(metadata.version(wanted.name), prereleases=True):
            return
        sys.exit(1)
    except metadata.PackageNotFoundError:
        found = wheels.get(canonicalize_name(wanted.name), ())
    found = [wheel for wheel in found if wanted.specifier.contains(wheel[0], prereleases=True)]
    with zipfile.ZipFile(max(found)[2]) as archive:
        if any(".data/" in name for name in archive.namelist()):
            sys.exit(1)
        archive.extractall(site)

todo, seen = [("hermes-edge", frozenset(filter(None, sys.argv[1].split(","))))], set()
only = re.compile(r"ONLY")
while todo:
    name, extras = todo.pop()
    seen.add((name, extras))
    for text in metadata.requires(name) or ():
        extra = only.search(text)
        if extra and canonicalize_name(extra[1]) not in map(canonicalize_name, extras):
            continue
        wanted = Requirement(text)
        if wanted.marker and not any(wanted.marker.evaluate({"extra": e}) for e in ("", *extras)):
            continue
        see(wanted)
        if (wanted.name, frozenset(wanted.extras)) not in seen:
            todo.append((wanted.name, frozenset(wanted.extras)))
""".replace("ONLY", ONLY)
"""Sees that all that it needs is there: because the system has it, or because the wheel for it was
sent, which then has only to be unpacked. Pip would do the same, in seconds or, on a small board, in
a minute. Where this fails, for whatever reason, pip is asked."""

BESIDE = "import os, pip; print(os.path.dirname(pip.__path__[0]))"
"""Where pip lies."""

RECENT = 'import pip, sys; sys.exit(tuple(map(int, pip.__version__.split(".")[:2])) < (22, 3))'
BUNDLED = (
    "import ensurepip, glob, os; print(glob.glob(os.path.join(os.path.dirname(ensurepip.__file__), "
    '"_bundled", "pip-*.whl"))[0])'
)
"""A pip that can install for another Python; or the one that every Python carries for `venv`, run
from its file. Neither has to be installed into the environment, which takes longer than ours."""
