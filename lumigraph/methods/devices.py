"""Device choice: an NVIDIA GPU if our kernels compile for it, else the CPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lumigraph.kernels import cuda
from lumigraph.scene.errors import RunError


def choose(device_name: str, supported: Sequence[str]) -> tuple[str, str | None]:
    """Return ("cpu" or "cuda", a note for the user or None).

    `auto` takes a usable GPU, and the CPU with a note if a GPU exists but is unusable. Raises RunError if the requested
    device is not available.
    """
    if device_name != "auto" and device_name not in supported:
        raise RunError(f"this method runs on {' and '.join(supported)} only, not on {device_name}; leave out --device")
    if device_name == "cpu" or "cuda" not in supported:
        return "cpu", None
    why = _without()
    if why is None:
        return "cuda", None
    if device_name == "cuda":
        raise RunError(f"{why}; or say --device cpu")
    return "cpu", f"the GPU is not used: {why}" if torch.cuda.is_available() else None


def describe() -> str:
    """Describe the GPU, or why there is none, in a few words."""
    why = _without()
    return f"no GPU: {why}" if why is not None else torch.cuda.get_device_name()


def _without() -> str | None:
    """Reason why no GPU is usable; None if its kernels are compiled and loaded."""
    why = cuda.unavailable_reason()
    if why is None:
        try:
            cuda.get_launcher(torch.device("cuda", torch.cuda.current_device()))
        except Exception as error:  # any driver, compiler or disk error: the CPU still works
            why = f"its kernels could not be made ready ({error})"
    return why
