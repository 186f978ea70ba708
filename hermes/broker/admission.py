"""How does this machine know, afterwards, how to get in at a broker that was started on it?

By access files: in the user's configuration for each address by which the broker is called here,
and in its folder of secrets for whoever is given that folder. One of a broker that is gone, or that
lets everyone in now, is removed: it would only be in the way.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from hermes.broker.places import Wanted
from hermes.broker.secured import MASTER, Secure
from hermes.errors import UsageError
from hermes.transport.access import Access, Secret, access_file, read_access, write_access
from hermes.transport.address import Address, is_local


def tell_access(wanted: Wanted, access: Access | None, secure: Secure | None) -> None:
    """Note how to get in at a broker that was just started. Raises `OSError`."""
    addresses = [str(wanted.local), str(wanted.advertised)]
    if access is None or secure is None:
        forget_access(addresses)
        return
    write_access(secure.folder, str(wanted.advertised), access)
    for address in _called(addresses):
        file = access_file(address)
        write_access(file.parent, address, access, name=file.stem, file=file)


def forget_access(addresses: Iterable[str], password: Secret | None = None) -> None:
    """Remove what `tell_access` wrote for a broker of these addresses; with a password: only where
    it is this one, since another broker may be there by now."""
    for address in _called(addresses):
        file = access_file(address)
        with contextlib.suppress(OSError, UsageError):
            found = read_access(file)
            if found.user == MASTER and password in (None, found.password):
                # The secret first: who is interrupted here must not leave it.
                file.with_suffix(".password").unlink(missing_ok=True)
                file.unlink()


def _called(addresses: Iterable[str]) -> list[str]:
    """These, and by its name what is this machine's own."""
    found = list(dict.fromkeys(addresses))
    for address in list(found):
        host, _, port = address.rpartition(":")
        if is_local(host):
            found.append(str(Address("localhost", int(port))))
    return list(dict.fromkeys(found))
