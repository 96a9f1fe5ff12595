"""An emulated GPU (csrc/emulate.h): runs the CUDA kernels on the CPU, so that they are tested without a GPU."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lumigraph.kernels import cuda

BUILD = Path(__file__).parents[2] / "build" / "emulated"


FLAGS = ("-std=c++17", "-O2", "-fPIC", "-shared", "-ffp-contract=fast", "-mfma", "-Wno-psabi", "-Wno-attributes")


@functools.cache
def launcher(defines: Sequence[str] = ()) -> Emulated:
    """Compile the kernels, cached by their sources. Skips the test without a C++ compiler or on another processor."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")
    if platform.machine() != "x86_64" or compiler is None:
        pytest.skip("the emulated GPU needs x86-64 and a C++ compiler")
    kernels = {}
    with ThreadPoolExecutor(2) as pool:
        libraries = pool.map(lambda source: _compile_library(source, compiler, defines), cuda.programs())
        for library, names in zip(libraries, cuda.programs().values(), strict=True):
            loaded_library = ctypes.CDLL(str(library))
            kernels |= {name: getattr(loaded_library, f"emulate_{name}") for name in names}
    return Emulated(kernels)


def _compile_library(source: str, compiler: str, defines: Sequence[str]) -> Path:
    lines = [f'#include "{cuda.SOURCES / source}"']
    for name in cuda.programs()[source]:
        lines.append(f'extern "C" void emulate_{name}(unsigned x, unsigned y, unsigned z, void** args) {{')
        lines.append(f"    emulation::run(&{name}, Dim{{x, y, z}}, lumi::THREADS, args);")
        lines.append("}")
    text = "\n".join([*lines, ""])
    parts = [text, *FLAGS, *defines, (cuda.SOURCES / source).read_text(), *cuda.headers().values()]
    library = BUILD / f"{source}-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:16]}.so"
    if not library.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        unit = library.with_name(f"{library.stem}-{os.getpid()}.cpp")
        unit.write_text(text)
        subprocess.run([compiler, *FLAGS, *defines, "-o", str(unit.with_suffix(".so")), str(unit)], check=True)
        unit.with_suffix(".so").replace(library)
        unit.unlink()
    return library


class Emulated:
    """A launcher for tensors on the CPU."""

    def __init__(self, kernels: dict[str, Any]) -> None:
        self._kernels = kernels
        self.launched_kernels: list[str] = []

    def prepare(self, kernel: str, grid: int | tuple[int, int, int], *arguments: cuda.Argument) -> Callable[[], None]:
        grid_size = (grid, 1, 1) if isinstance(grid, int) else grid
        values = [cuda.c_value(argument) for argument in arguments]
        addresses = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))

        def launch(references: object = (values, arguments)) -> None:
            self._kernels[kernel](*grid_size, addresses)
            self.launched_kernels.append(kernel)

        return launch

    def launch(self, kernel: str, grid: int | tuple[int, int, int], *arguments: cuda.Argument) -> None:
        self.prepare(kernel, grid, *arguments)()
