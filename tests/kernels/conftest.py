"""Devices of the kernel tests."""

import os
import warnings
from collections.abc import Iterator

import pytest
import torch

from lumigraph.kernels import (
    adam,
    cuda,
    hashgrid,
    operations,
    ray_marching,
    splatting,
    splatting_cuda,
    volume_rendering,
)
from tests.kernels import emulated

assert adam and hashgrid and ray_marching and volume_rendering  # define their torch operations


@pytest.fixture
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """Device of a test: "cpu"; "emulated", the CUDA kernels on the CPU; or "cuda", skipped without a usable GPU."""
    device_name = getattr(request, "param", "cpu")
    if device_name == "cuda":
        reason = cuda.unavailable_reason()
        if reason is not None:
            pytest.skip(reason)
        yield torch.device("cuda", torch.cuda.current_device())
    elif device_name == "emulated":
        if "LUMIGRAPH_ISA" in os.environ:
            pytest.skip("the emulated GPU has no instruction sets")
        launcher = emulated.launcher()
        monkeypatch.setattr(splatting, "create_rasterizer", lambda device: splatting_cuda.Rasterizer(launcher, device))
        monkeypatch.setattr(cuda, "get_launcher", lambda device: launcher)
        emulated_library = torch.library.Library("lumigraph", "IMPL")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the CPU implementation is replaced
            for name, function in operations.cuda_implementations.items():
                emulated_library.impl(name, function, "CPU")
        yield torch.device("cpu")
        emulated_library._destroy()
    else:
        yield torch.device("cpu")
