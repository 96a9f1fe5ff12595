"""Torch operations with a CPU and a CUDA implementation. Torch's dispatcher selects one by the device of the tensors.

Operations see plain tensors; autograd functions in the calling modules provide the gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from lumigraph.kernels import cuda

library = cast(Any, torch.library.Library)("lumigraph", "DEF")
cuda_implementations: dict[str, Callable[..., Any]] = {}  # by name, for tests that emulate a GPU on a CPU


def register_operation(
    schema: str, cpu_function: Callable[..., Any], cuda_function: Callable[..., Any]
) -> Callable[..., Any]:
    """Define a torch operation. Both functions take the arguments of `schema`, which is in torch's schema language."""
    name = schema.split("(")[0]
    library.define(schema)
    library.impl(name, cpu_function, "CPU")
    library.impl(name, cuda_function, "CUDA")
    cuda_implementations[name] = cuda_function
    torch_op: Callable[..., Any] = getattr(torch.ops.lumigraph, name).default
    return torch_op


def has_compiled_kernel(*tensors: Tensor) -> bool:
    """Whether operations accept these tensors: float32, all on the CPU or on one usable GPU."""
    device = tensors[0].device
    if not all(x.dtype == torch.float32 and x.device == device for x in tensors):
        return False
    return device.type == "cpu" or (device.type == "cuda" and cuda.unavailable_reason() is None)


def check_tensor(
    name: str, x: Tensor, shape: tuple[int, ...], like: Tensor, dtype: torch.dtype = torch.float32
) -> None:
    """Raise ValueError unless x is contiguous, of this shape and dtype, on the device of `like`.

    Rows of 2 or 4 values must also be aligned to a row, since kernels load them as vectors.
    """
    columns = shape[1] if len(shape) == 2 and shape[1] in (2, 4) else 1
    if x.shape != shape or x.dtype != dtype or x.device != like.device or not x.is_contiguous():
        raise ValueError(
            f"{name} has {x.dtype} {tuple(x.shape)} on {x.device}, not contiguous {dtype} {shape} on {like.device}"
        )
    if x.data_ptr() % (columns * x.element_size()):
        raise ValueError(f"{name} is not aligned to a row; clone it")


def launch(like: Tensor, kernel: str, grid: int | tuple[int, int, int], *arguments: cuda.Argument) -> None:
    """Launch a CUDA kernel once on the device of `like`."""
    cuda.get_launcher(like.device).launch(kernel, grid, *arguments)
