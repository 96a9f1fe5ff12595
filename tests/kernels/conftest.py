"""Where the kernels of a test run."""

import os

import pytest
import torch

from lumigraph.kernels import cuda, splat, splat_cuda
from tests.kernels import emulated


@pytest.fixture
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """For tests marked ON_DEVICES: "cpu"; "played", the CUDA kernels run by a processor; "cuda", where there is one."""
    where = getattr(request, "param", "cpu")
    if where == "cuda":
        why = cuda.missing()
        if why is not None:
            pytest.skip(why)
        return torch.device("cuda", torch.cuda.current_device())
    if where == "played":
        if "LUMIGRAPH_ISA" in os.environ:
            pytest.skip("it has no instruction sets to choose from")
        launcher = emulated.launcher()
        monkeypatch.setattr(splat, "view_of", lambda device: splat_cuda.View(launcher, device))
    return torch.device("cpu")
