"""Our CUDA kernels on a machine with a driver and no toolkit: compiled by NVRTC at first use, kept on disk, launched.

NVRTC and the driver's API come through `cuda.bindings`, which CUDA builds of torch (2.10 and later, Linux) bring along
with NVRTC itself: nothing else has to be installed. docs/decisions/0009 compares it with the other ways.

A kernel is named in its source by `KERNEL(name)` and prepared by that name with tensors, ints, floats, None (a null
pointer) and bytes (a struct), or with objects of ctypes, which may change between one launch and the next.
`Launcher` is all that the code above knows, so tests play the GPU on a processor.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

SOURCES = Path(__file__).parent / "csrc"
THREADS = 256  # of every block: THREADS in device.h
OPTIONS = ("-default-device", "-std=c++17", "-use_fast_math", "-Werror", "all-warnings")

Held = ctypes._SimpleCData | ctypes.Array  # type: ignore[type-arg]
Argument = Tensor | int | float | bytes | Held | None
Launch = Callable[[], None]


class CudaError(RuntimeError):
    """The driver or the compiler refused; the message says what it was asked for."""


class Launcher(Protocol):
    """What runs kernels on the memory of tensors of one device, in the order in which they are launched."""

    def prepare(self, kernel: str, grid: int | tuple[int, int, int], *arguments: Argument) -> Launch:
        """A launch that can be done again and again. It keeps the memory of its tensors alive."""
        ...

    def launch(self, kernel: str, grid: int | tuple[int, int, int], *arguments: Argument) -> None:
        """Prepared and done once."""
        ...


# ---- sources and their compilation


@functools.cache
def programs() -> dict[str, tuple[str, ...]]:
    """{source: names of its kernels}, in the order of their names."""
    found = {}
    for path in sorted(SOURCES.glob("*_cuda.cu")):
        found[path.name] = tuple(re.findall(r"KERNEL\((?:__launch_bounds__\(\w+\)\s*)?(\w+)\)", path.read_text()))
    return found


@functools.cache
def headers() -> dict[str, str]:
    """The headers that kernels may include: those of ours, and nothing of the system's."""
    return {path.name: path.read_text() for path in sorted(SOURCES.glob("*.h"))}


def compile_program(source: str, architecture: str, defines: Sequence[str] = ()) -> bytes:
    """A cubin of csrc/`source` for an architecture such as "sm_90". Raises CudaError with the compiler's words; a
    warning is an error."""
    from cuda.bindings import nvrtc

    text, given = (SOURCES / source).read_text(), headers()
    names, bodies = [name.encode() for name in given], [body.encode() for body in given.values()]
    program = _done(nvrtc.nvrtcCreateProgram(text.encode(), source.encode(), len(given), bodies, names))
    options = [option.encode() for option in (f"--gpu-architecture={architecture}", *OPTIONS, *defines)]
    (result,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
    # written into in place, so never bytes: those of one character are shared by all of Python
    log = bytearray(_done(nvrtc.nvrtcGetProgramLogSize(program)))
    _done(nvrtc.nvrtcGetProgramLog(program, log))
    if result != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise CudaError(f"{source} could not be compiled for {architecture}:\n{log.rstrip(bytes(1)).decode()}")
    cubin = bytearray(_done(nvrtc.nvrtcGetCUBINSize(program)))
    _done(nvrtc.nvrtcGetCUBIN(program, cubin))
    nvrtc.nvrtcDestroyProgram(program)
    return bytes(cubin)


def _done(answer: tuple[Any, ...]) -> Any:
    """What a call of cuda.bindings gave besides its result. Raises CudaError."""
    result, *values = answer
    if result.value != 0:
        raise CudaError(f"{type(result).__name__} {result.name}")
    return values[0] if len(values) == 1 else tuple(values) or None


# ---- what was compiled before


def cache_folder() -> Path:
    """LUMIGRAPH_CACHE, or the user's folder for such things."""
    import platformdirs

    given = os.environ.get("LUMIGRAPH_CACHE")
    return Path(given) if given else platformdirs.user_cache_path("lumigraph")


def load_or_compile(source: str, architecture: str, versions: str, defines: Sequence[str] = ()) -> bytes:
    """As `compile_program`, at most once for each source, architecture and `versions` of compiler and driver. A folder
    that cannot be written, or a damaged file, costs the time to compile and nothing else."""
    parts = [source, (SOURCES / source).read_text(), *headers().values(), architecture, versions, *OPTIONS, *defines]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    path = cache_folder() / "kernels" / f"{source.removesuffix('.cu')}-{architecture}-{key[:32]}.cubin"
    try:
        kept = path.read_bytes()
        if hashlib.sha256(kept[32:]).digest() == kept[:32]:
            return kept[32:]
    except OSError:
        pass
    cubin = compile_program(source, architecture, defines)
    beside = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        beside.write_bytes(hashlib.sha256(cubin).digest() + cubin)
        beside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink()
    return cubin


# ---- a GPU


class CudaLauncher:
    """Kernels on one NVIDIA GPU, launched into torch's current stream."""

    def __init__(self, device: torch.device, defines: Sequence[str] = ()) -> None:
        from cuda.bindings import driver, nvrtc

        with torch.cuda.device(device):
            torch.zeros(1, device=device)  # the context exists from here
            major, minor = torch.cuda.get_device_capability(device)
            versions = f"nvrtc {_done(nvrtc.nvrtcVersion())} driver {_done(driver.cuDriverGetVersion())}"
            of = functools.partial(
                load_or_compile, architecture=f"sm_{major}{minor}", versions=versions, defines=defines
            )
            with ThreadPoolExecutor() as pool:
                cubins = dict(zip(programs(), pool.map(of, programs()), strict=True))
            self._functions = {}
            self._modules = []
            for source, names in programs().items():
                module = _done(driver.cuModuleLoadData(cubins[source]))
                self._modules.append(module)
                for name in names:
                    self._functions[name] = _done(driver.cuModuleGetFunction(module, name.encode()))
        self._launch, self._device = driver.cuLaunchKernel, device

    def prepare(self, kernel: str, grid: int | tuple[int, int, int], *arguments: Argument) -> Launch:
        across = (grid, 1, 1) if isinstance(grid, int) else grid
        values = [c_value(argument) for argument in arguments]
        addresses = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
        function, given = self._functions[kernel], ctypes.addressof(addresses)

        def launch(alive: object = (values, addresses, arguments)) -> None:
            stream = torch.cuda.current_stream(self._device).cuda_stream
            (result,) = self._launch(function, *across, THREADS, 1, 1, 0, stream, given, 0)
            if result.value != 0:
                raise CudaError(f"the kernel {kernel} over {across} blocks: {result.name}")

        return launch

    def launch(self, kernel: str, grid: int | tuple[int, int, int], *arguments: Argument) -> None:
        self.prepare(kernel, grid, *arguments)()


def c_value(argument: Argument) -> Any:
    """As a kernel's parameter: an object of ctypes that holds it."""
    if isinstance(argument, Tensor):
        return ctypes.c_void_p(argument.data_ptr())
    if isinstance(argument, bytes):
        return ctypes.create_string_buffer(argument, len(argument))
    if isinstance(argument, float):
        return ctypes.c_float(argument)
    if isinstance(argument, int):
        return ctypes.c_int32(argument)
    return ctypes.c_void_p(None) if argument is None else argument


@functools.cache
def get_launcher(device: torch.device) -> Launcher:
    """For tensors of this device, which has an index. Raises CudaError where its kernels cannot be had."""
    why = unavailable_reason()
    if why is not None:
        raise CudaError(why)
    return CudaLauncher(device)


@functools.cache
def unavailable_reason() -> str | None:
    """Why no GPU can be used here, in a sentence; None where one can."""
    if not torch.cuda.is_available():
        return (
            "this build of PyTorch has no CUDA; install the usual one (pip install torch) where there is an NVIDIA GPU"
            if torch.version.cuda is None
            else "PyTorch finds no NVIDIA GPU with a working driver"
        )
    try:
        from cuda.bindings import driver, nvrtc

        _done(nvrtc.nvrtcVersion())
        _done(driver.cuInit(0))
    except Exception as error:  # a library that cannot be loaded says so in many ways
        return (
            f"the GPU's compiler is missing ({error}); pip install cuda-bindings, of the CUDA version of your PyTorch"
        )
    if min(torch.cuda.get_device_capability()) < 0 or torch.cuda.get_device_capability() < (7, 5):
        return f"{torch.cuda.get_device_name()} is older than Turing (compute capability 7.5)"
    return None
