"""Which device learns and renders: an NVIDIA GPU where our kernels can be compiled for it, else the processor."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lumigraph.kernels import cuda
from lumigraph.scene.errors import RunError


def choose(wanted: str, supported: Sequence[str]) -> tuple[str, str | None]:
    """("cpu" or "cuda", what should be said of it or None). `auto` takes a GPU where one can be used, and the CPU with
    a note where one is there and cannot. Raises RunError where the wanted device is not to be had."""
    if wanted != "auto" and wanted not in supported:
        raise RunError(f"this method runs on {' and '.join(supported)} only, not on {wanted}; leave out --device")
    if wanted == "cpu" or "cuda" not in supported:
        return "cpu", None
    why = _without()
    if why is None:
        return "cuda", None
    if wanted == "cuda":
        raise RunError(f"{why}; or say --device cpu")
    return "cpu", f"the GPU is not used: {why}" if torch.cuda.is_available() else None


def describe() -> str:
    """The GPU, or why there is none, in a few words."""
    why = _without()
    return f"no GPU: {why}" if why is not None else torch.cuda.get_device_name()


def _without() -> str | None:
    """Why no GPU can be used; None where its kernels are compiled and loaded."""
    why = cuda.unavailable_reason()
    if why is None:
        try:
            cuda.get_launcher(torch.device("cuda", torch.cuda.current_device()))
        except Exception as error:  # whatever a driver, a compiler or a full disk say: the CPU is there
            why = f"its kernels could not be made ready ({error})"
    return why
