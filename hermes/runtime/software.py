"""What does this process run? Versions, for the hello and the run's opening."""

from __future__ import annotations

import platform
from importlib.metadata import version

from hermes.messages import PROTOCOL, Software


def software(framework: str) -> Software:
    """Versions of this process."""
    return Software(version("hermes-edge"), PROTOCOL, platform.python_version(), framework)
