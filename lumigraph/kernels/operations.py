"""Operations that run where their tensors lie: torch's dispatcher chooses between an implementation for the CPU and one
for CUDA, so that nothing above has to know.

They see plain tensors: gradients are the business of the functions above them. `has_compiled_kernel` says whether
they take some.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from lumigraph.kernels import cuda

library = cast(Any, torch.library.Library)("lumigraph", "DEF")
cuda_implementations: dict[str, Callable[..., Any]] = {}  # for tests, which let a processor play the GPU


def register_operation(schema: str, cpu: Callable[..., Any], gpu: Callable[..., Any]) -> Callable[..., Any]:
    """`schema` in torch's own words; gpu: takes the same, launches kernels (cuda.get_launcher)."""
    name = schema.split("(")[0]
    library.define(schema)
    library.impl(name, cpu, "CPU")
    library.impl(name, gpu, "CUDA")
    cuda_implementations[name] = gpu
    defined: Callable[..., Any] = getattr(torch.ops.lumigraph, name).default
    return defined


def has_compiled_kernel(*tensors: Tensor) -> bool:
    """Whether operations take these: float32, on one CPU or one GPU that can be used."""
    device = tensors[0].device
    if not all(x.dtype == torch.float32 and x.device == device for x in tensors):
        return False
    return device.type == "cpu" or (device.type == "cuda" and cuda.unavailable_reason() is None)


def check_tensor(
    name: str, x: Tensor, shape: tuple[int, ...], like: Tensor, dtype: torch.dtype = torch.float32
) -> None:
    """ValueError unless a kernel can read x as contiguous values of this shape beside `like`, rows of 2 or 4 whole."""
    row = shape[1] if len(shape) == 2 and shape[1] in (2, 4) else 1
    if x.shape != shape or x.dtype != dtype or x.device != like.device or not x.is_contiguous():
        raise ValueError(
            f"{name} has {x.dtype} {tuple(x.shape)} on {x.device}, not {dtype} {shape} in one piece on {like.device}"
        )
    if x.data_ptr() % (row * x.element_size()):
        raise ValueError(f"{name} begins amid a row; clone it")


def launch(like: Tensor, kernel: str, grid: int | tuple[int, int, int], *arguments: cuda.Argument) -> None:
    """On the device of `like`."""
    cuda.get_launcher(like.device).launch(kernel, grid, *arguments)
