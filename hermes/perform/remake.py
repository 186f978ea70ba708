"""How is a version made again, from what the ledger names? With the digest that it must have.

For `hermes verify`, for a broker that lost what it had acknowledged, and for what the master holds
beside the model: whoever has one version and the updates since forms all later ones, bit for bit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

from hermes.codec import decode_tensors, digest_of
from hermes.coded import decode_update
from hermes.errors import (
    BrokerRefused,
    Defect,
    DigestMismatch,
    HermesError,
    NoSuchTopic,
    PeerError,
)
from hermes.machine.events import Part, Recipe
from hermes.messages import VersionPublished
from hermes.perform.merging import Mixture, Sources, form, packed
from hermes.perform.store import Fetches
from hermes.policy.aggregate import check_form
from hermes.policy.codecs import FP32
from hermes.values import Payload, Tensors

GONE = (PeerError, NoSuchTopic, BrokerRefused)
"""What reading raises where the bytes are not there, or not those announced: for good."""


def told(error: HermesError) -> str:
    """Why something could not be had, as a record has it: no remedy."""
    return f"{error.where}: {error.what}" if error.where else error.what


class Start(NamedTuple):
    """A version that is at hand, and the master's momentum at it (empty: none)."""

    version: int
    digest: str
    model: Tensors
    moments: Tensors


class Remade(NamedTuple):
    """A version made again: its bytes, which have the digest that the ledger names."""

    version: VersionPublished
    data: bytes
    model: Tensors
    """Views of `data`."""
    moments: Tensors

    def start(self) -> Start:
        """To go on from it."""
        digest = self.version.payload.digest
        return Start(self.version.version, digest, self.model, self.moments)


def remake(
    start: Start, recipes: Iterable[Recipe], buffers: Collection[str], sources: Sources
) -> Iterator[Remade]:
    """The versions after `start`, one for each recipe, in order; formed as they are asked for.

    Two models are held, and what merging takes; nothing of a version that was handed out once the
    next one is asked for, if the caller lets go of it. Raises `DigestMismatch` for a version that
    comes out differently, `PeerError` for one of which a part is missing, and what `sources` raise.
    """
    last = start
    del start  # the first model is let go of, too
    for recipe in recipes:
        remade = _next(last, recipe, buffers, sources)
        last = remade.start()
        yield remade
        del remade


def _next(last: Start, recipe: Recipe, buffers: Collection[str], sources: Sources) -> Remade:
    version = recipe.version
    _must_be_whole(last, recipe)
    formed = form(Mixture.again(recipe, last.digest), last.model, last.moments, buffers, sources)
    data, moments = packed(formed.model, version.codec, last.digest), formed.moments
    del formed
    found, named = digest_of(data), version.payload.digest
    if found != named:
        raise DigestMismatch(
            f"made again from its updates it has the digest {found[:12]}; the ledger names "
            f"{named[:12]}",
            where=f"version {version.version}",
        )
    return Remade(version, data, decode_tensors(data), moments)


def _must_be_whole(last: Start, recipe: Recipe) -> None:
    """All parts that the ledger names, with the weights that it names, and no version left out."""
    version = recipe.version
    place = f"version {version.version}"
    if version.version != last.version + 1:
        raise PeerError(f"it does not follow version {last.version}", where=place)
    if not version.members:
        raise PeerError("it was not made of updates", where=place)
    parts = [(part.worker, part.update.birth, part.weight) for part in recipe.parts]
    if parts != [(one.worker, one.birth, one.weight) for one in version.members]:
        raise Defect("its parts are not the members that the ledger names", where=place)


# --- where the tensors come from ----------------------------------------------------------------


def sources_in(store: Fetches, again: Mapping[str, Payload] = MappingProxyType({})) -> Sources:
    """Updates and bases as they lie in the log; what is gone, damaged or does not fit raises
    `PeerError` that names it. `again`: where versions lie that were stored anew, by digest."""

    def update(part: Part, like: Tensors) -> Tensors:
        birth = part.update.birth
        name = f"update {birth.number} of {part.worker} ({birth.incarnation})"
        local = _read(store, part.update.payload, name, part.update.codec, like)
        refusal = check_form(local, like)
        if refusal is not None:
            raise PeerError(f"{name} does not fit: {refusal.code} {refusal.facts}")
        return local

    def base(payload: Payload) -> Tensors:
        payload = again.get(payload.digest, payload)
        return _read(store, payload, f"the version {payload.digest[:12]}, a base")

    return Sources(update, base)


def _read(
    store: Fetches, payload: Payload, name: str, codec: str = FP32, base: Tensors | None = None
) -> Tensors:
    """A version or, with its `base`, an update."""
    try:
        data = store.get(payload)
        return decode_tensors(data) if base is None else decode_update(data, codec, base)
    except GONE as error:
        raise PeerError(f"{name} cannot be read: {error.what}", where=error.where) from None
