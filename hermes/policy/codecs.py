"""As what do tensors travel, each way? Pure.

The names of the codecs, and the two settings that choose among them; `hermes.coded` does the work.
"""

from __future__ import annotations

import msgspec

from hermes.policy.ranges import Allowed, one_of

FP32, FP16 = "fp32", "fp16"

NAMES = (FP32, FP16)
"""Every codec there is. A sparse or low-bit one is a name here, and a coder in `hermes.coded`."""

SHARE = {FP32: 1.0, FP16: 0.5}
"""Of a model of 32-bit floats: what travels of it, where nobody has measured yet."""


class CodecSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """As what tensors travel: floats of 32 or 64 bits; all others always go as they are."""

    up: str = FP32
    """Updates. `fp32`: the worker's model, bit for bit (floats of 64 bits, too). `fp16`: half the
    bytes: how far it moved from its base, rounded to the nearest, with a power of two as the scale
    of each tensor."""
    down: str = FP32
    """Versions. `fp32`: bit for bit. `fp16`: half the bytes; rounded at random, without a bias, by
    chance that is named by the version before, so that a restart rounds alike. The rounded version
    is the global model."""


RANGES: dict[str, Allowed] = {"up": one_of(*NAMES), "down": one_of(*NAMES)}
"""What each of the settings may be."""
