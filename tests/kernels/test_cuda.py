"""CUDA support as far as a machine without a GPU can test it: compilation, cache, structures, fallback to the CPU."""

import ctypes
import re
from pathlib import Path

import pytest
import torch

from lumigraph.kernels import adam, cuda, hashgrid, ray_marching, splatting_cuda
from lumigraph.methods import devices
from lumigraph.scene.errors import RunError

nvrtc = pytest.importorskip("cuda.bindings.nvrtc", reason="cuda-bindings is not installed")


@pytest.mark.parametrize("architecture", ["sm_75", "sm_90", "sm_120"])
@pytest.mark.parametrize("source", cuda.programs())
def test_compile_program_has_no_warnings(source: str, architecture: str) -> None:
    """NVRTC comes from PyPI; warnings are errors. A cubin is an ELF file that names its kernels."""
    cubin = cuda.compile_program(source, architecture)
    assert cubin.startswith(b"\x7fELF")
    assert all(bytes([i])[0] == i for i in range(256))  # Python shares these objects: NVRTC must not write into them
    names = cuda.programs()[source]
    assert names and all(b".text." + name.encode() in cubin for name in names)


def test_compile_program_rejects_warnings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "bad_cuda.cu").write_text('extern "C" __global__ void f(float* x) { int unused; x[0] = 1; }')
    monkeypatch.setattr(cuda, "SOURCES", tmp_path)
    with pytest.raises(cuda.CudaError, match=r"bad_cuda\.cu could not be compiled for sm_90[\s\S]*unused"):
        cuda.compile_program("bad_cuda.cu", "sm_90")


def test_load_or_compile_caches_cubins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LUMIGRAPH_CACHE", str(tmp_path / "cache"))
    source, architectures = "sort_cuda.cu", []

    def count(source: str, architecture: str, defines: object = ()) -> bytes:
        architectures.append(architecture)
        return b"cubin of " + architecture.encode()

    monkeypatch.setattr(cuda, "compile_program", count)
    for _ in range(2):
        assert cuda.load_or_compile(source, "sm_86", "1") == b"cubin of sm_86"
    assert cuda.load_or_compile(source, "sm_90", "1") == b"cubin of sm_90"
    assert cuda.load_or_compile(source, "sm_90", "another driver") == b"cubin of sm_90"
    assert architectures == ["sm_86", "sm_90", "sm_90"]
    (cubin_file,) = (tmp_path / "cache" / "kernels").glob("*sm_86*")
    cubin_file.write_bytes(cubin_file.read_bytes()[:-1] + b"!")  # corrupt
    assert cuda.load_or_compile(source, "sm_86", "1") == b"cubin of sm_86" and len(architectures) == 4
    assert not list((tmp_path / "cache" / "kernels").glob("*.tmp-*"))


def test_load_or_compile_ignores_unwritable_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LUMIGRAPH_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(cuda, "compile_program", lambda *_: b"cubin")
    assert cuda.load_or_compile("sort_cuda.cu", "sm_86", "1") == b"cubin"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_devices_choose_falls_back_to_cpu() -> None:
    assert devices.choose("auto", ("cpu", "cuda")) == ("cpu", None)
    assert devices.describe().startswith("no GPU: ")
    with pytest.raises(RunError, match=r"PyTorch.*--device cpu"):
        devices.choose("cuda", ("cpu", "cuda"))


def test_devices_choose_reports_unusable_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU is used if the driver is too old, the compiler is missing, or the disk is full."""

    def fails(device: object) -> None:
        raise cuda.CudaError("CUDA_ERROR_NO_BINARY_FOR_GPU")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(cuda, "unavailable_reason", lambda: None)
    monkeypatch.setattr(cuda, "get_launcher", fails)
    device, note = devices.choose("auto", ("cpu", "cuda"))
    assert device == "cpu" and note is not None and "CUDA_ERROR_NO_BINARY_FOR_GPU" in note
    with pytest.raises(RunError, match="NO_BINARY"):
        devices.choose("cuda", ("cpu", "cuda"))


def test_ctypes_structures_equal_sizes_asserted_in_headers() -> None:
    sources = "".join(path.read_text() for path in cuda.SOURCES.iterdir() if path.suffix in (".h", ".cu"))
    pattern = r'static_assert\(sizeof\(\w+\) == (\d+), "(\w+) of \w+\.py"\)'
    asserted_sizes = {name: int(size) for size, name in re.findall(pattern, sources)}
    structures: list[type[ctypes.Structure]] = [
        adam.AdamStep,
        hashgrid.LevelStruct,
        ray_marching.OccupancyGridStruct,
        ray_marching.MarchSettingsStruct,
        splatting_cuda.CameraStruct,
        splatting_cuda.LossWeightsStruct,
        splatting_cuda.AdamRowsStruct,
    ]
    assert asserted_sizes == {structure.__name__: ctypes.sizeof(structure) for structure in structures}
