"""Disks that are full or read-only, for a command alone: in a mount namespace of its own.

Works as root and as any user that may make namespaces; what lay on the small disk is gone with the
command, so a test looks at what was said, and at what lies elsewhere.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def on_disk(
    disk: Path, options: str, script: str, folder: Path, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a shell script with a tmpfs at `disk`, mounted so; `$HERMES` is the program."""
    disk.mkdir(parents=True, exist_ok=True)
    plain = {key: value for key, value in os.environ.items() if not key.startswith("HERMES_")}
    places = {f"HERMES_{key}": str(folder / key.lower()) for key in ("CONFIG", "STATE", "CACHE")}
    program = f"{sys.executable} -m hermes"
    mount = f"mount -t tmpfs -o {options} tmpfs {disk} && cd {folder} && {{ {script}\n}}"
    return subprocess.run(
        ["unshare", "-rm", "sh", "-c", mount],
        capture_output=True,
        text=True,
        env={**plain, **places, "HERMES": program, "TMPDIR": str(folder), **variables},
        timeout=100,
    )
