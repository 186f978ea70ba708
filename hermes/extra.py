"""Is what SSH and certificates need installed on this machine? It is the extra `cluster`."""

from __future__ import annotations

from importlib.util import find_spec

from hermes.errors import UsageError

NEEDED = ("paramiko", "cryptography")

REMEDY = "In the checkout: ./scripts/install cluster; elsewhere: pip install 'hermes-edge[cluster]'"


def check() -> None:
    """Raise `UsageError` where something of it is not installed: once, before anything begins."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"a cluster over SSH needs {' and '.join(missing)}, which "
            f"{'is' if len(missing) == 1 else 'are'} not installed here",
            remedy=REMEDY,
        )
