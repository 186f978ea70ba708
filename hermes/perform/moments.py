"""What does the master hold beside the model, and how is it had again? The momentum at a version.

It is no part of what is published, and workers never read it. It is held in memory for the version
in force, saved in the topic `state` every few versions (float64, as it is used), and after a
restart formed again: from the newest snapshot that can be read, and the updates merged since. That
is believed only because each version on the way comes out with the digest that the ledger names.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

from hermes.codec import decode_tensors
from hermes.errors import Defect, PeerError
from hermes.machine.events import Recipe, RestoreState, StateRestored, StateStored
from hermes.messages import VersionPublished
from hermes.perform.merging import packed
from hermes.perform.remake import GONE, Start, remake, sources_in, told
from hermes.perform.store import Store
from hermes.transport import names
from hermes.values import Payload, Tensors


class Origin(NamedTuple):
    """A version whose momentum is known: as a snapshot, or there was none yet."""

    version: int
    snapshot: Payload | None


class Moments:
    """The momentum at the versions that are in use: by number and digest, since a step too small
    to move a bit of the model still moves it."""

    def __init__(self, store: Store, buffers: Collection[str]) -> None:
        self._store, self._buffers = store, buffers
        self._held: dict[tuple[int, str], Tensors] = {}

    def at(self, version: VersionPublished) -> Tensors:
        """The momentum at this version; empty at version 0. Raises `Defect` if it is not here:
        zeros in its place would be a loss in silence."""
        found = self._held.get(_key(version))
        if found is None and version.version > 0:
            raise Defect(f"the momentum at version {version.version} was not restored")
        return found or {}

    def hold(self, version: int, digest: str, moments: Tensors) -> None:
        """From now on these are those of this version."""
        self._held[version, digest] = moments

    def keep(self, version: VersionPublished) -> None:
        """Let go of those of all other versions."""
        self._held = {key: kept for key, kept in self._held.items() if key == _key(version)}

    def let_go(self) -> None:
        """Of all: two models, beside which the next version is packed."""
        self._held.clear()

    def save(self, version: VersionPublished) -> StateStored:
        """Send them; raises `BrokerError`."""
        data = packed(self.at(version))
        self._held[_key(version)] = decode_tensors(data)  # views: not held twice while it is sent
        return StateStored(version.version, self._store.put(names.STATE, data))

    def restore(self, action: RestoreState) -> StateRestored:
        """Have them again; where that cannot be, there are none, and the outcome says why. Raises
        `BrokerUnreachable`."""
        version, why = action.version, ""
        for origin in _origins(action):
            try:
                found = self._formed(origin, action)
            except GONE as error:
                why = why or told(error)
            else:
                self._held[_key(version)] = found
                return StateRestored(version.version, origin.version)
        self._held[_key(version)] = {}
        return StateRestored(version.version, version.version, why or "there is no snapshot")

    def _formed(self, origin: Origin, action: RestoreState) -> Tensors:
        """Those of the action's version; raises what `GONE` says."""
        moments = self._read(origin.snapshot)
        if origin.version == action.version.version:
            return moments
        recipes, first = _between(origin, action), _known(action).get(origin.version)
        if first is None:
            raise PeerError(f"version {origin.version} is not kept")
        begin = (origin.version, first.payload.digest)
        begun = Start(*begin, self._read(first.payload), moments)
        with self._store.shelves() as shelves:
            for remade in remake(begun, recipes, self._buffers, sources_in(shelves)):
                moments = remade.moments
        return moments

    def _read(self, payload: Payload | None) -> Tensors:
        return {} if payload is None else decode_tensors(self._store.get(payload))


def _key(version: VersionPublished) -> tuple[int, str]:
    return version.version, version.payload.digest


def _known(action: RestoreState) -> dict[int, VersionPublished]:
    return {one.version: one for one in (*action.versions, action.version)}


def _origins(action: RestoreState) -> Iterator[Origin]:
    """From where to begin: the newest snapshot first, and last the newest version that was made
    without momentum."""
    last = action.version.version
    saved = [one for one in action.snapshots if one.version <= last]
    for one in saved:
        yield Origin(one.version, one.payload)
    bare = [
        number
        for number, known in _known(action).items()
        if number <= last and known.rule != "momentum" and number not in {s.version for s in saved}
    ]
    if bare:
        yield Origin(max(bare), None)


def _between(origin: Origin, action: RestoreState) -> list[Recipe]:
    """What the versions after the origin were made of, up to the action's; raises `PeerError`
    where that is not known."""
    wanted = range(origin.version + 1, action.version.version + 1)
    recipes = {recipe.version.version: recipe for recipe in action.recipes}
    for number in wanted:
        if number not in recipes:
            raise PeerError(f"what version {number} was made of is not kept")
    if recipes[wanted[-1]].version.payload.digest != action.version.payload.digest:
        raise Defect("a recipe of another version than the one whose momentum is asked for")
    return [recipes[number] for number in wanted]
