"""Are the newest version's bytes where the ledger says? If a broker lost them, they are made again.

From memory, else from the newest older version that can be read and the updates since: each version
on the way has the digest that the ledger names, or it is not believed. What cannot be made again is
said, never passed over (protocol 7).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

from hermes.codec import decode_tensors
from hermes.errors import PeerError
from hermes.machine.events import RestoreState, SecureVersions, VersionsSecured
from hermes.messages import VersionPublished
from hermes.perform.merging import packed
from hermes.perform.moments import Moments
from hermes.perform.remake import GONE, Start, remake, sources_in, told
from hermes.perform.store import Store
from hermes.transport import names
from hermes.values import Payload, Tensors


class Seat(NamedTuple):
    """What is at hand to make versions again."""

    store: Store
    buffers: Collection[str]
    moments: Moments
    held: Callable[[str], Tensors | None]
    """The model of this digest, if it is in memory."""


class Secured(NamedTuple):
    """The outcome, and the newest version's tensors where they were had on the way."""

    outcome: VersionsSecured
    model: Tensors | None = None


def secure(action: SecureVersions, seat: Seat) -> Secured:
    """See to it. Raises `BrokerUnreachable`."""
    newest, why = action.versions[0], ""
    for version in action.versions:
        try:
            model = decode_tensors(_read(seat.store, version))
        except GONE as error:
            why = why or told(error)
            held = seat.held(version.payload.digest) if version is newest else None
            if held is not None:
                payload = seat.store.put(names.MODEL, packed(held, newest.codec))
                again = ((version.version, payload),)
                return Secured(VersionsSecured(again, version.version, why, newest.version), held)
            continue
        if version is newest:
            return Secured(VersionsSecured((), version.version, asked=newest.version), model)
        return _made_again(action, version, model, seat, why)
    return Secured(VersionsSecured((), -1, why, newest.version))


def _read(store: Store, version: VersionPublished) -> bytes | bytearray:
    store.must_reach(version.payload)
    return store.get(version.payload)


def _made_again(
    action: SecureVersions, version: VersionPublished, model: Tensors, seat: Seat, why: str
) -> Secured:
    republished: list[tuple[int, Payload]] = []
    anew: dict[str, Payload] = {}
    recipes = [one for one in action.recipes if one.version.version > version.version]
    try:
        moments = _moments(action, version, seat.moments)
        start = Start(version.version, version.payload.digest, model, moments)
        with seat.store.shelves() as shelves:
            sources = sources_in(shelves, anew)
            for remade in remake(start, recipes, seat.buffers, sources):
                payload = seat.store.put(names.MODEL, remade.data)
                anew[payload.digest] = payload  # an update after it may start from it
                republished.append((remade.version.version, payload))
                model = remade.model
                del remade
    except GONE as error:
        why = told(error)
    last = republished[-1][0] if republished else version.version
    newest = action.versions[0].version
    return Secured(VersionsSecured(tuple(republished), last, why, newest), model)


def _moments(action: SecureVersions, version: VersionPublished, moments: Moments) -> Tensors:
    """What the master held at this version; raises what `GONE` says where that cannot be had."""
    if all(one.rule != "momentum" for one in action.versions):
        return {}
    known = [one for one in action.versions if one.version <= version.version]
    restore = RestoreState(version, action.snapshots, action.recipes, tuple(known))
    found = moments.restore(restore)
    if found.lost:
        raise PeerError(f"what the master held at version {version.version}: {found.lost}")
    return moments.at(version)
