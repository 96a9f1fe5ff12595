"""COLMAP models: pycolmap writes them and projects their points, and our reader must give the same pixels."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lumigraph.captures.readers import colmap
from lumigraph.scene.cameras import project
from lumigraph.scene.errors import CaptureError

from .common import distinct_values, save_image
from .write_colmap import PARAMETERS

LENSES = {"PINHOLE": "pinhole", "SIMPLE_PINHOLE": "pinhole"} | {m: "fisheye" for m in PARAMETERS if "FISHEYE" in m}
NAMES = ("a.png", "c.png", "d.png", "e.png", "sub/b.png")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of all kinds with their photos, written by pycolmap in a separate process."""
    folder = tmp_path_factory.mktemp("colmap")
    script = Path(__file__).parent / "write_colmap.py"
    subprocess.run([sys.executable, str(script), str(folder)], check=True, timeout=120)
    for model in folder.iterdir():
        for name in json.loads((model / "truth.json").read_text())["pixels"]:
            for form in ("bin", "txt"):
                save_image(model / form / "images" / name)
    return folder


def copy_model(models: Path, target: Path, model: str = "OPENCV", form: str = "bin") -> Path:
    return Path(shutil.copytree(models / model / form, target / "capture"))


@pytest.mark.parametrize("form", ["bin", "txt"])
@pytest.mark.parametrize("model", [m for m in PARAMETERS if m != "FOV"] + ["rig"])
def test_colmap_projections_equal_pycolmap(models: Path, model: str, form: str) -> None:
    reference: dict[str, Any] = json.loads((models / model / "truth.json").read_text())
    path = models / model / form
    assert colmap.accepts(path)
    capture = colmap.read(path)
    assert capture.names == tuple(sorted(reference["pixels"]))
    assert capture.cameras.lens == LENSES.get(model, "opencv")
    assert capture.source == "colmap" and capture.notes == ()
    assert capture.held_out.tolist() == [i % 8 == 0 for i in range(len(capture))]
    points = capture.points
    assert points is not None and points.rgb is not None and len(points) == len(reference["xyz"])
    order = torch.cdist(torch.tensor(reference["xyz"]), points.xyz).argmin(dim=1)
    assert (points.xyz[order] - torch.tensor(reference["xyz"])).abs().max() < 1e-5
    assert points.rgb[order].tolist() == reference["colours"]
    pixels, depth = project(capture.cameras, points.xyz[order])
    assert (depth > 0).all()
    expected = torch.tensor([reference["pixels"][name] for name in capture.names])
    assert (pixels - expected).abs().max() < 2e-3
    ordered_points = points.select(order)
    assert ordered_points.view_offsets is not None and ordered_points.view_indices is not None
    for i, names in enumerate(reference["seen"]):
        row = ordered_points.view_indices[ordered_points.view_offsets[i] : ordered_points.view_offsets[i + 1]].tolist()
        assert [capture.names[j] for j in row] == names
    assert capture.photo(0).shape == (48, 64, 3)


def test_colmap_names_unsupported_lens(models: Path) -> None:
    for form in ("bin", "txt"):
        with pytest.raises(CaptureError, match="FOV is not supported"):
            colmap.read(models / "FOV" / form)


@pytest.mark.parametrize("layout", ["sparse/0", "sparse", "colmap/sparse/0", ".", "0"])
def test_colmap_finds_every_usual_layout(models: Path, tmp_path: Path, layout: str) -> None:
    capture = tmp_path / "capture"
    shutil.copytree(models / "RADIAL" / "bin" / "images", capture / "images")
    shutil.copytree(models / "RADIAL" / "bin" / "sparse" / "0", capture / layout, dirs_exist_ok=True)
    assert colmap.accepts(capture)
    assert colmap.read(capture).names == NAMES


def test_colmap_model_path_finds_photos_above(models: Path, tmp_path: Path) -> None:
    path = copy_model(models, tmp_path)
    assert colmap.read(path / "sparse" / "0").names == NAMES
    assert colmap.read(path / "sparse").names == NAMES


def test_colmap_photos_next_to_model_files(models: Path, tmp_path: Path) -> None:
    shutil.copytree(models / "RADIAL" / "bin" / "images", tmp_path / "capture")
    shutil.copytree(models / "RADIAL" / "bin" / "sparse" / "0", tmp_path / "capture", dirs_exist_ok=True)
    assert colmap.read(tmp_path / "capture").names == NAMES


def test_colmap_uses_largest_model_with_note(models: Path, tmp_path: Path) -> None:
    path = copy_model(models, tmp_path)
    shutil.move(path / "sparse" / "0", path / "sparse" / "1")
    small = path / "sparse" / "0"
    shutil.copytree(models / "OPENCV" / "txt" / "sparse" / "0", small)
    lines = (small / "images.txt").read_text().splitlines()
    (small / "images.txt").write_text("\n".join(lines[:-2]) + "\n")  # the last image is two lines
    capture = colmap.read(path)
    assert len(capture) == 5
    assert len(capture.notes) == 1 and "1, with 5 photos" in capture.notes[0]


def test_colmap_missing_photos_are_noted(models: Path, tmp_path: Path) -> None:
    path = copy_model(models, tmp_path)
    (path / "images" / "c.png").unlink()
    capture = colmap.read(path)
    assert capture.names == ("a.png", "d.png", "e.png", "sub/b.png")
    assert len(capture.notes) == 1 and "c.png" in capture.notes[0]
    reference = json.loads((models / "OPENCV" / "truth.json").read_text())
    assert capture.points is not None and capture.points.view_indices is not None
    assert len(capture.points.view_indices) == sum(name != "c.png" for names in reference["seen"] for name in names)
    shutil.rmtree(path / "images")
    with pytest.raises(CaptureError, match="none of the 5 photos"):
        colmap.read(path)


def test_colmap_scaled_photos_scale_intrinsics(models: Path, tmp_path: Path) -> None:
    path = copy_model(models, tmp_path)
    original = colmap.read(path)
    for name in NAMES:
        save_image(path / "images" / name, (32, 24))
    half_size = colmap.read(path)
    assert half_size.cameras.size(0) == (32, 24)
    assert torch.allclose(half_size.cameras.focal * 2, original.cameras.focal)
    assert torch.allclose(half_size.cameras.centre * 2, original.cameras.centre)
    save_image(path / "images" / "d.png", (24, 32))
    with pytest.raises(CaptureError, match=r"d\.png is 24x32 pixels but .* 64x48 \(it seems rotated"):
        colmap.read(path)


def test_colmap_reads_masks(models: Path, tmp_path: Path) -> None:
    path = copy_model(models, tmp_path)
    for i, name in enumerate(NAMES):
        save_image(path / "masks" / f"{name}.png", seed=i, mode="L")
    capture = colmap.read(path)
    assert capture.masks is not None and capture.masks[2].shape == (48, 64, 1)
    assert distinct_values(capture.masks[2]) == [0, 255]
    (path / "masks" / "a.png.png").unlink()
    assert colmap.read(path).masks is None


def test_colmap_rejects_paths_outside_the_capture(models: Path, tmp_path: Path) -> None:
    path = copy_model(models, tmp_path, form="txt")
    file = path / "sparse" / "0" / "images.txt"
    for name in ("../../x/c.png", "/etc/c.png", "..\\..\\c.png"):
        file.write_text((models / "OPENCV/txt/sparse/0/images.txt").read_text().replace(" c.png", f" {name}"))
        with pytest.raises(CaptureError, match="is outside"):
            colmap.read(path)


def test_colmap_text_error_has_line_number(models: Path, tmp_path: Path) -> None:
    path = copy_model(models, tmp_path, form="txt")
    for stem, line in (("cameras", "7 OPENCV 64 48 1 2 3 x"), ("images", "1 2 3"), ("points3D", "1 2 3 4 5 6 700 8")):
        file = path / "sparse" / "0" / f"{stem}.txt"
        original = file.read_text()
        file.write_text(original + line + "\n")
        with pytest.raises(CaptureError, match=rf"{stem}\.txt, line \d+"):
            colmap.read(path)
        file.write_text(original)
    colmap.read(path)


def test_colmap_rejects_non_finite_poses_and_lenses(models: Path, tmp_path: Path) -> None:
    path = copy_model(models, tmp_path, form="txt")
    file = path / "sparse" / "0" / "images.txt"
    lines = file.read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if line.endswith("a.png"))
    for column, value in ((1, "nan"), (5, "inf"), (6, "1e30")):
        words = lines[first].split()
        words[column] = value
        file.write_text("\n".join([*lines[:first], " ".join(words), *lines[first + 1 :]]))
        with pytest.raises(CaptureError, match=r"a\.png is not finite"):
            colmap.read(path)
    words = lines[first].split()
    words[1:5] = ["0"] * 4
    file.write_text("\n".join([*lines[:first], " ".join(words), *lines[first + 1 :]]))
    with pytest.raises(CaptureError, match="quaternion"):
        colmap.read(path)
    file.write_text("\n".join(lines))
    cameras = path / "sparse" / "0" / "cameras.txt"
    for line in ("7 PINHOLE 64 48 -60 62 33 23", "7 PINHOLE 64 48 nan 62 33 23", "7 PINHOLE 64 48 1e12 62 33 23"):
        cameras.write_text(line)
        with pytest.raises(CaptureError, match=r"\.png"):
            colmap.read(path)


def test_colmap_leaves_out_points_at_infinity(models: Path, tmp_path: Path) -> None:
    path = copy_model(models, tmp_path, form="txt")
    with (path / "sparse" / "0" / "points3D.txt").open("a") as file:
        file.write("900 nan 0 0 1 2 3 0.5 3 0 5 0\n901 0 inf 0 1 2 3 0.5\n902 0 0 1e20 1 2 3 0.5 12 0\n")
    original, capture = colmap.read(models / "OPENCV" / "txt"), colmap.read(path)
    assert original.points is not None and capture.points is not None
    assert len(capture.points) == len(original.points)
    assert torch.equal(torch.as_tensor(capture.points.view_counts), torch.as_tensor(original.points.view_counts))
    assert "3 points" in capture.notes[0]


@pytest.mark.parametrize("stem", ["cameras", "images", "points3D"])
def test_colmap_rejects_count_beyond_file(models: Path, tmp_path: Path, stem: str) -> None:
    path = copy_model(models, tmp_path)
    file = path / "sparse" / "0" / f"{stem}.bin"
    for count in (2**63, 2**40, 10**5):
        file.write_bytes(struct.pack("<Q", count) + file.read_bytes()[8:])
        with pytest.raises(CaptureError, match="more than its"):
            colmap.read(path)


def test_colmap_without_points_or_with_broken_references(models: Path, tmp_path: Path) -> None:
    path = copy_model(models, tmp_path)
    (path / "sparse" / "0" / "points3D.bin").unlink()
    assert colmap.read(path).points is None
    (path / "sparse" / "0" / "cameras.bin").write_bytes(struct.pack("<Q", 0))
    with pytest.raises(CaptureError, match="uses camera 7"):
        colmap.read(path)
    (path / "sparse" / "0" / "images.bin").write_bytes(b"")
    with pytest.raises(CaptureError, match="ends at byte 0"):
        colmap.read(path)


def test_colmap_accepts_no_other_folder(tmp_path: Path) -> None:
    assert not colmap.accepts(tmp_path)
    assert not colmap.accepts(tmp_path / "nowhere")
    with pytest.raises(CaptureError, match="no COLMAP model"):
        colmap.read(tmp_path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_colmap_damage_raises_only_capture_error(models: Path, tmp_path: Path, data: st.DataObject) -> None:
    """Truncated, flipped and overwritten bytes: the reader succeeds or raises CaptureError, nothing else."""
    form = data.draw(st.sampled_from(["bin", "txt"]))
    stem = data.draw(st.sampled_from(["cameras", "images", "points3D"]))
    source = models / "OPENCV" / form
    path = tmp_path / form
    if not path.exists():
        shutil.copytree(source, path)
    original = (source / "sparse" / "0" / f"{stem}.{form}").read_bytes()
    content = bytearray(original[: data.draw(st.integers(0, len(original)))] if data.draw(st.booleans()) else original)
    for _ in range(data.draw(st.integers(0, 4))):
        if content:
            offset = data.draw(st.integers(0, len(content) - 1))
            content[offset : offset + 8] = data.draw(st.binary(min_size=1, max_size=8))
    file = path / "sparse" / "0" / f"{stem}.{form}"
    file.write_bytes(bytes(content))
    try:
        capture = colmap.read(path)
    except CaptureError:
        pass
    else:
        assert np.isfinite(capture.cameras.world_from_cam.numpy()).all()
        assert capture.points is None or bool(capture.points.xyz.isfinite().all())
    finally:
        file.write_bytes(original)
