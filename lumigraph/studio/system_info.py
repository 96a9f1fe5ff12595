"""Information about this machine and the installed packages. Heavy imports are noted at each function."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import lumigraph
from lumigraph.studio import registry

PACKAGES = ("torch", "numpy", "opencv-python-headless", "pillow", "pycolmap", "av", "pydantic", "safetensors", "rich")


@dataclass(frozen=True)
class Extra:
    """An optional dependency: `pip install lumigraph[name]`."""

    name: str
    module: str
    description: str

    @property
    def is_installed(self) -> bool:
        return find_spec(self.module) is not None


EXTRAS = (
    Extra("heic", "pillow_heif", "photos in HEIC, as iPhones take them"),
    Extra("formats", "DracoPy", "Draco, meshopt and OpenUSD files"),
    Extra("postgres", "psycopg", "PostgreSQL for the jobs, instead of SQLite"),
)


def describe(short: bool = False) -> list[tuple[str, str]]:
    """Return (name, value) lines. The full form imports torch; the short form has no heavy imports."""
    lines = [
        ("lumigraph", lumigraph.__version__),
        ("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        ("torch", _version("torch")),
        ("cpu", f"{cpu_model()}, {count_cores()} cores"),
    ]
    if short:
        return lines
    lines[2:3] = [(package, _version(package)) for package in PACKAGES]
    lines.append(("kernels", _kernels()))
    lines.append(("device", _device()))
    for extra in EXTRAS:
        hint = f"not installed: `pip install 'lumigraph[{extra.name}]'` adds {extra.description}"
        lines.append((f"extra {extra.name}", f"installed: {extra.description}" if extra.is_installed else hint))
    return lines


def cpu_model() -> str:
    """Return the model name of the processor, or its architecture if the system does not report it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def count_cores() -> int:
    """Count the cores that this process may use: in a container, fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _kernels() -> str:
    """Return the instruction set of the compiled kernels that the methods loaded. Imports all methods."""
    try:
        for name in registry.METHODS:
            registry.method(name)
    except ImportError as error:
        return f"not usable ({error}); install lumigraph again"
    native = sys.modules.get("lumigraph.kernels.native")
    return "none loaded" if native is None else f"compiled, instruction set {native.isa}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _device() -> str:
    """Describe the compute devices. Imports torch."""
    import torch

    from lumigraph.methods import devices

    return f"cpu, {torch.get_num_threads()} threads; {devices.describe()}"
