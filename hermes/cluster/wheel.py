"""What do nodes install? A wheel of this very Hermes, packed from the package that runs here.

With the standard library alone: no network, no build tool, and nothing of a source tree but the
package itself. The same files give the same bytes, so that a wheel which has not changed is not
sent again.
"""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import NamedTuple

from hermes.errors import UsageError

DISTRIBUTION, PACKAGE = "hermes-edge", "hermes"

FILE_FORM = """\
Wheel-Version: 1.0
Generator: hermes up
Root-Is-Purelib: true
Tag: py3-none-any
"""

OLDEST = (1980, 1, 1, 0, 0, 0)
"""The date of every file: the oldest that the format has."""


class Wheel(NamedTuple):
    """A wheel, whole."""

    name: str
    """Of its file."""
    version: str
    data: bytes
    requirements: tuple[str, ...]
    """What it needs, with its extras, as its metadata say."""

    @property
    def digest(self) -> str:
        """SHA-256, hex."""
        return hashlib.sha256(self.data).hexdigest()


def pack() -> Wheel:
    """The wheel of the Hermes that runs. Raises `UsageError` where it was never installed."""
    import hermes

    found = _installed()
    version = found.version
    stem = f"{DISTRIBUTION.replace('-', '_')}-{version}"
    files = _package_files(Path(hermes.__file__).parent)
    info = f"{stem}.dist-info"
    files[f"{info}/METADATA"] = _metadata(found)
    files[f"{info}/WHEEL"] = FILE_FORM.encode()
    files[f"{info}/entry_points.txt"] = (found.read_text("entry_points.txt") or "").encode()
    files[f"{info}/top_level.txt"] = f"{PACKAGE}\n".encode()
    needs = tuple(found.requires or ())
    files[f"{info}/RECORD"] = _record(files, f"{info}/RECORD")
    return Wheel(f"{stem}-py3-none-any.whl", version, _zipped(files), needs)


def _installed() -> Distribution:
    """Of the places that tell of it, one with whole metadata: beside a source tree there may lie a
    rest of an old build."""
    found = list(distributions(name=DISTRIBUTION))
    for one in found:
        if one.read_text("METADATA") and one.read_text("entry_points.txt"):
            return one
    raise UsageError(
        "this Hermes was not installed, so there is no telling what it needs",
        where=DISTRIBUTION,
        remedy="Install it where you start hermes up, for example: pip install -e .",
    )


def _package_files(folder: Path) -> dict[str, bytes]:
    return {
        f"{PACKAGE}/{path.relative_to(folder).as_posix()}": path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
    }


def _metadata(found: Distribution) -> bytes:
    """Without the description: nobody reads it on a node."""
    text = found.read_text("METADATA") or ""
    head = text.partition("\n\n")[0]
    return (head.rstrip() + "\n").encode()


def _record(files: dict[str, bytes], own: str) -> bytes:
    lines = []
    for name in sorted(files):
        digest = base64.urlsafe_b64encode(hashlib.sha256(files[name]).digest()).decode().rstrip("=")
        lines.append(f"{name},sha256={digest},{len(files[name])}")
    return ("\n".join([*lines, f"{own},,"]) + "\n").encode()


def _zipped(files: dict[str, bytes]) -> bytes:
    into = io.BytesIO()
    with zipfile.ZipFile(into, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, OLDEST)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, files[name])
    return into.getvalue()
