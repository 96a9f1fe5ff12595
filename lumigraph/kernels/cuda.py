"""CUDA kernels without a CUDA toolkit: NVRTC compiles them at first use, a disk cache keeps them, the driver runs them.

NVRTC and the driver API come from `cuda.bindings`, which CUDA builds of torch (2.10 and later, Linux) install along
with NVRTC itself. Nothing else has to be installed. docs/decisions/0009 compares the alternatives.

`KERNEL(name)` in a source declares a kernel. A launch is prepared with the kernel's name and arguments: tensors, ints,
floats, None (a null pointer) and ctypes objects, whose values may change between launches. Calling code depends on
`Launcher` alone, so tests can emulate a GPU on a CPU.
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
THREADS_PER_BLOCK = 256  # THREADS in csrc/device.h
NVRTC_OPTIONS = ("-default-device", "-std=c++17", "-use_fast_math", "-Werror", "all-warnings")
MIN_COMPUTE_CAPABILITY = (7, 5)  # Turing
DIGEST_BYTES = 32  # of SHA-256, in front of a cached cubin

CtypesValue = ctypes._SimpleCData | ctypes.Array | ctypes.Structure  # type: ignore[type-arg]
Argument = Tensor | int | float | CtypesValue | None
Launch = Callable[[], None]


class CudaError(RuntimeError):
    """The CUDA driver or compiler reported an error. The message names the failed request."""


class Launcher(Protocol):
    """Kernel launches on tensors of one device, in submission order."""

    def prepare(self, kernel: str, grid: int | tuple[int, int, int], *arguments: Argument) -> Launch:
        """Prepare a launch that can be repeated. It keeps the memory of its tensors alive."""
        ...

    def launch(self, kernel: str, grid: int | tuple[int, int, int], *arguments: Argument) -> None:
        """Prepare a launch and run it once."""
        ...


# ---- sources and compilation


@functools.cache
def programs() -> dict[str, tuple[str, ...]]:
    """{source file: names of its kernels}, sorted by file name."""
    kernel_names = {}
    for path in sorted(SOURCES.glob("*_cuda.cu")):
        pattern = r"KERNEL\((?:__launch_bounds__\(\w+\)\s*)?(\w+)\)"
        kernel_names[path.name] = tuple(re.findall(pattern, path.read_text()))
    return kernel_names


@functools.cache
def headers() -> dict[str, str]:
    """{file name: text} of all headers that kernels may include. System headers are not available."""
    return {path.name: path.read_text() for path in sorted(SOURCES.glob("*.h"))}


def compile_program(source: str, architecture: str, defines: Sequence[str] = ()) -> bytes:
    """Compile csrc/`source` to a cubin for an architecture such as "sm_90".

    Raises CudaError with the compiler's log if there is an error or a warning.
    """
    from cuda.bindings import nvrtc

    text, texts_by_name = (SOURCES / source).read_text(), headers()
    names, bodies = [name.encode() for name in texts_by_name], [body.encode() for body in texts_by_name.values()]
    program = _unwrap(nvrtc.nvrtcCreateProgram(text.encode(), source.encode(), len(names), bodies, names))
    options = [option.encode() for option in (f"--gpu-architecture={architecture}", *NVRTC_OPTIONS, *defines)]
    (result,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
    # NVRTC writes in place, so a bytearray: Python shares bytes objects of length 1
    log = bytearray(_unwrap(nvrtc.nvrtcGetProgramLogSize(program)))
    _unwrap(nvrtc.nvrtcGetProgramLog(program, log))
    if result != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise CudaError(f"{source} could not be compiled for {architecture}:\n{log.rstrip(bytes(1)).decode()}")
    cubin = bytearray(_unwrap(nvrtc.nvrtcGetCUBINSize(program)))
    _unwrap(nvrtc.nvrtcGetCUBIN(program, cubin))
    nvrtc.nvrtcDestroyProgram(program)
    return bytes(cubin)


def _unwrap(results: tuple[Any, ...]) -> Any:
    """Return the values of a cuda.bindings call without its status. Raises CudaError if the status is an error."""
    status, *values = results
    if status.value != 0:
        raise CudaError(f"{type(status).__name__} {status.name}")
    return values[0] if len(values) == 1 else tuple(values) or None


# ---- disk cache of cubins


def cache_folder() -> Path:
    """Return LUMIGRAPH_CACHE, or the user's cache folder."""
    import platformdirs

    folder = os.environ.get("LUMIGRAPH_CACHE")
    return Path(folder) if folder else platformdirs.user_cache_path("lumigraph")


def load_or_compile(source: str, architecture: str, versions: str, defines: Sequence[str] = ()) -> bytes:
    """Return the cubin of `compile_program` from the cache, or compile it.

    The key includes the source, all headers, the architecture and the `versions` of compiler and driver. A folder that
    cannot be written or a damaged file only costs compile time.
    """
    parts = [source, (SOURCES / source).read_text(), *headers().values(), architecture, versions]
    key = hashlib.sha256("\0".join([*parts, *NVRTC_OPTIONS, *defines]).encode()).hexdigest()
    path = cache_folder() / "kernels" / f"{source.removesuffix('.cu')}-{architecture}-{key[:32]}.cubin"
    try:
        content = path.read_bytes()
        if hashlib.sha256(content[DIGEST_BYTES:]).digest() == content[:DIGEST_BYTES]:
            return content[DIGEST_BYTES:]
    except OSError:
        pass
    cubin = compile_program(source, architecture, defines)
    temporary_path = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary_path.write_bytes(hashlib.sha256(cubin).digest() + cubin)
        temporary_path.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary_path.unlink()
    return cubin


# ---- GPU


class CudaLauncher:
    """Launcher for one NVIDIA GPU. Kernels run on torch's current stream."""

    def __init__(self, device: torch.device, defines: Sequence[str] = ()) -> None:
        from cuda.bindings import driver, nvrtc

        with torch.cuda.device(device):
            torch.zeros(1, device=device)  # creates the CUDA context
            major, minor = torch.cuda.get_device_capability(device)
            versions = f"nvrtc {_unwrap(nvrtc.nvrtcVersion())} driver {_unwrap(driver.cuDriverGetVersion())}"
            load = functools.partial(
                load_or_compile, architecture=f"sm_{major}{minor}", versions=versions, defines=defines
            )
            with ThreadPoolExecutor() as pool:
                cubins = dict(zip(programs(), pool.map(load, programs()), strict=True))
            self._functions = {}
            self._modules = []
            for source, names in programs().items():
                module = _unwrap(driver.cuModuleLoadData(cubins[source]))
                self._modules.append(module)
                for name in names:
                    self._functions[name] = _unwrap(driver.cuModuleGetFunction(module, name.encode()))
        self._launch, self._device = driver.cuLaunchKernel, device

    def prepare(self, kernel: str, grid: int | tuple[int, int, int], *arguments: Argument) -> Launch:
        grid_size = (grid, 1, 1) if isinstance(grid, int) else grid
        values = [c_value(argument) for argument in arguments]
        addresses = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
        function, kernel_params = self._functions[kernel], ctypes.addressof(addresses)

        def launch(references: object = (values, addresses, arguments)) -> None:  # kept alive with the closure
            stream = torch.cuda.current_stream(self._device).cuda_stream
            (status,) = self._launch(function, *grid_size, THREADS_PER_BLOCK, 1, 1, 0, stream, kernel_params, 0)
            if status.value != 0:
                raise CudaError(f"the kernel {kernel} over {grid_size} blocks: {status.name}")

        return launch

    def launch(self, kernel: str, grid: int | tuple[int, int, int], *arguments: Argument) -> None:
        self.prepare(kernel, grid, *arguments)()


def c_value(argument: Argument) -> Any:
    """Convert a kernel argument to a ctypes object that holds it."""
    if isinstance(argument, Tensor):
        return ctypes.c_void_p(argument.data_ptr())
    if isinstance(argument, float):
        return ctypes.c_float(argument)
    if isinstance(argument, int):
        return ctypes.c_int32(argument)
    return ctypes.c_void_p(None) if argument is None else argument


@functools.cache
def get_launcher(device: torch.device) -> Launcher:
    """Return the launcher of this device, which must have an index. Raises CudaError if no GPU can be used."""
    reason = unavailable_reason()
    if reason is not None:
        raise CudaError(reason)
    return CudaLauncher(device)


@functools.cache
def unavailable_reason() -> str | None:
    """Return a sentence that says why no GPU can be used, or None if one can."""
    if not torch.cuda.is_available():
        return (
            "this build of PyTorch has no CUDA; install the default build (pip install torch) to use an NVIDIA GPU"
            if torch.version.cuda is None
            else "PyTorch finds no NVIDIA GPU with a working driver"
        )
    try:
        from cuda.bindings import driver, nvrtc

        _unwrap(nvrtc.nvrtcVersion())
        _unwrap(driver.cuInit(0))
    except Exception as error:  # a library that fails to load raises errors of many types
        return f"NVRTC is missing ({error}); pip install cuda-bindings for the CUDA version of your PyTorch"
    if torch.cuda.get_device_capability() < MIN_COMPUTE_CAPABILITY:
        return f"{torch.cuda.get_device_name()} is older than Turing (compute capability 7.5)"
    return None
