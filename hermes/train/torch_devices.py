"""On which device does a torch model run?"""

from __future__ import annotations

import torch

from hermes.errors import JobError


def devices_here() -> list[str]:
    """The devices of this machine: "cpu", and "cuda:0", ... or "mps" where there are such."""
    found = ["cpu"]
    if torch.cuda.is_available():
        found += [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("mps")
    return found


def device_of(wanted: str, where: str = "") -> torch.device:
    """The device of this name; "auto": cuda, else mps, else the CPU.

    Raises `JobError` for one that is not here; `where`: FILE:LINE that asks for it.
    """
    here = devices_here()
    if wanted == "auto":
        wanted = next((name for name in ("cuda:0", "mps") if name in here), "cpu")
    if (f"{wanted}:0" if wanted == "cuda" else wanted) not in here:
        raise JobError(
            f"the device is {wanted}, and this machine has {', '.join(here)}",
            where=where,
            remedy='Take --device auto (or device="auto" in the job): cuda, else mps, else cpu.'
            + ("" if torch.version.cuda else " This torch was built without CUDA."),
        )
    return torch.device(wanted)
