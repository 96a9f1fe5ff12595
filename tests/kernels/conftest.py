"""Where the kernels of a test run."""

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

assert adam and hashgrid and ray_marching and volume_rendering  # have defined their operations


@pytest.fixture
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """For tests marked ON_DEVICES: "cpu"; "played", the CUDA kernels run by a processor; "cuda", where there is one."""
    where = getattr(request, "param", "cpu")
    if where == "cuda":
        why = cuda.unavailable_reason()
        if why is not None:
            pytest.skip(why)
        yield torch.device("cuda", torch.cuda.current_device())
    elif where == "played":
        if "LUMIGRAPH_ISA" in os.environ:
            pytest.skip("it has no instruction sets to choose from")
        launcher = emulated.launcher()
        monkeypatch.setattr(splatting, "create_rasterizer", lambda device: splatting_cuda.Rasterizer(launcher, device))
        monkeypatch.setattr(cuda, "get_launcher", lambda device: launcher)
        played = torch.library.Library("lumigraph", "IMPL")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there is one already
            for name, function in operations.cuda_implementations.items():
                played.impl(name, function, "CPU")
        yield torch.device("cpu")
        played._destroy()
    else:
        yield torch.device("cpu")
