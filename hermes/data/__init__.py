"""Where do the samples come from, and how do they reach a worker?

What a job's `data()` may return (`hermes.data.sources`): arrays or memory maps `(x, y)`; the same
with an official test set, `((x, y), (x_test, y_test))`; or an iterator of `(x, y)` blocks. Here are
two helpers for it: `digits`, a small set that is always at hand, and `npz`.
"""

from __future__ import annotations

from hermes.data.files import digits, npz

__all__ = ["digits", "npz"]
