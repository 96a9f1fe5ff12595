"""Where the kernels of a test run."""

import os
import warnings
from collections.abc import Iterator

import pytest
import torch

from lumigraph.kernels import adam, cuda, hashgrid, march, operations, splatting, splatting_cuda, volume
from tests.kernels import emulated

assert adam and hashgrid and march and volume  # have defined their operations


@pytest.fixture
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """For tests marked ON_DEVICES: "cpu"; "played", the CUDA kernels run by a processor; "cuda", where there is one."""
    where = getattr(request, "param", "cpu")
    if where == "cuda":
        why = cuda.missing()
        if why is not None:
            pytest.skip(why)
        yield torch.device("cuda", torch.cuda.current_device())
    elif where == "played":
        if "LUMIGRAPH_ISA" in os.environ:
            pytest.skip("it has no instruction sets to choose from")
        launcher = emulated.launcher()
        monkeypatch.setattr(splatting, "view_of", lambda device: splatting_cuda.View(launcher, device))
        monkeypatch.setattr(cuda, "launcher", lambda device: launcher)
        played = torch.library.Library("lumigraph", "IMPL")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there is one already
            for name, function in operations.on_cuda.items():
                played.impl(name, function, "CPU")
        yield torch.device("cpu")
        played._destroy()
    else:
        yield torch.device("cpu")
