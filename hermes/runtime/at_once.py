"""How is a file replaced so that nobody ever reads half of it?"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def write_at_once(path: Path, data: bytes | bytearray | memoryview) -> None:
    """Write beside it, then put it in its place; what went wrong leaves nothing. Raises
    `OSError`."""
    spare = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        spare.write_bytes(data)
        spare.replace(path)
    except OSError:
        with contextlib.suppress(OSError):  # on a read-only disk even this is refused
            spare.unlink(missing_ok=True)
        raise
