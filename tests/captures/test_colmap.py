"""COLMAP models: pycolmap writes them, pycolmap projects their points, and we must land on the same pixels."""

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

from .common import save_picture, values
from .write_colmap import PARAMETERS

LENSES = {"PINHOLE": "pinhole", "SIMPLE_PINHOLE": "pinhole"} | {m: "fisheye" for m in PARAMETERS if "FISHEYE" in m}
NAMES = ("a.png", "c.png", "d.png", "e.png", "sub/b.png")


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of all kinds with their photos, written by pycolmap in a process of its own."""
    folder = tmp_path_factory.mktemp("colmap")
    script = Path(__file__).parent / "write_colmap.py"
    subprocess.run([sys.executable, str(script), str(folder)], check=True, timeout=120)
    for model in folder.iterdir():
        for name in json.loads((model / "truth.json").read_text())["pixels"]:
            for form in ("bin", "txt"):
                save_picture(model / form / "images" / name)
    return folder


def copied(written: Path, target: Path, model: str = "OPENCV", form: str = "bin") -> Path:
    return Path(shutil.copytree(written / model / form, target / "capture"))


@pytest.mark.parametrize("form", ["bin", "txt"])
@pytest.mark.parametrize("model", [m for m in PARAMETERS if m != "FOV"] + ["rig"])
def test_points_land_where_colmap_itself_puts_them(written: Path, model: str, form: str) -> None:
    truth: dict[str, Any] = json.loads((written / model / "truth.json").read_text())
    path = written / model / form
    assert colmap.accepts(path)
    capture = colmap.read(path)
    assert capture.names == tuple(sorted(truth["pixels"]))
    assert capture.cameras.lens == LENSES.get(model, "opencv")
    assert capture.source == "colmap" and capture.notes == ()
    assert capture.held_out.tolist() == [i % 8 == 0 for i in range(len(capture))]
    points = capture.points
    assert points is not None and points.rgb is not None and len(points) == len(truth["xyz"])
    order = torch.cdist(torch.tensor(truth["xyz"]), points.xyz).argmin(dim=1)
    assert (points.xyz[order] - torch.tensor(truth["xyz"])).abs().max() < 1e-5
    assert points.rgb[order].tolist() == truth["colours"]
    pixels, depth = project(capture.cameras, points.xyz[order])
    assert (depth > 0).all()
    expected = torch.tensor([truth["pixels"][name] for name in capture.names])
    assert (pixels - expected).abs().max() < 2e-3
    seen = points.select(order)
    assert seen.view_offsets is not None and seen.view_indices is not None
    for i, names in enumerate(truth["seen"]):
        row = seen.view_indices[seen.view_offsets[i] : seen.view_offsets[i + 1]].tolist()
        assert [capture.names[j] for j in row] == names
    assert capture.photo(0).shape == (48, 64, 3)


def test_an_unsupported_lens_is_named(written: Path) -> None:
    for form in ("bin", "txt"):
        with pytest.raises(CaptureError, match="FOV is not supported"):
            colmap.read(written / "FOV" / form)


@pytest.mark.parametrize("place", ["sparse/0", "sparse", "colmap/sparse/0", ".", "0"])
def test_every_usual_layout_is_found(written: Path, tmp_path: Path, place: str) -> None:
    capture = tmp_path / "capture"
    shutil.copytree(written / "RADIAL" / "bin" / "images", capture / "images")
    shutil.copytree(written / "RADIAL" / "bin" / "sparse" / "0", capture / place, dirs_exist_ok=True)
    assert colmap.accepts(capture)
    assert colmap.read(capture).names == NAMES


def test_naming_the_model_itself_finds_the_photos_above(written: Path, tmp_path: Path) -> None:
    path = copied(written, tmp_path)
    assert colmap.read(path / "sparse" / "0").names == NAMES
    assert colmap.read(path / "sparse").names == NAMES


def test_photos_may_lie_beside_the_model_files(written: Path, tmp_path: Path) -> None:
    shutil.copytree(written / "RADIAL" / "bin" / "images", tmp_path / "capture")
    shutil.copytree(written / "RADIAL" / "bin" / "sparse" / "0", tmp_path / "capture", dirs_exist_ok=True)
    assert colmap.read(tmp_path / "capture").names == NAMES


def test_the_largest_of_several_models_is_used_and_said(written: Path, tmp_path: Path) -> None:
    path = copied(written, tmp_path)
    shutil.move(path / "sparse" / "0", path / "sparse" / "1")
    small = path / "sparse" / "0"
    shutil.copytree(written / "OPENCV" / "txt" / "sparse" / "0", small)
    lines = (small / "images.txt").read_text().splitlines()
    (small / "images.txt").write_text("\n".join(lines[:-2]) + "\n")  # the last image is two lines
    capture = colmap.read(path)
    assert len(capture) == 5
    assert len(capture.notes) == 1 and "1, with 5 photos" in capture.notes[0]


def test_missing_photos_are_noted_and_forgotten_by_the_points(written: Path, tmp_path: Path) -> None:
    path = copied(written, tmp_path)
    (path / "images" / "c.png").unlink()
    capture = colmap.read(path)
    assert capture.names == ("a.png", "d.png", "e.png", "sub/b.png")
    assert len(capture.notes) == 1 and "c.png" in capture.notes[0]
    truth = json.loads((written / "OPENCV" / "truth.json").read_text())
    assert capture.points is not None and capture.points.view_indices is not None
    assert len(capture.points.view_indices) == sum(name != "c.png" for names in truth["seen"] for name in names)
    shutil.rmtree(path / "images")
    with pytest.raises(CaptureError, match="none of the 5 photos"):
        colmap.read(path)


def test_a_scaled_copy_scales_intrinsics_and_another_shape_is_an_error(written: Path, tmp_path: Path) -> None:
    path = copied(written, tmp_path)
    whole = colmap.read(path)
    for name in NAMES:
        save_picture(path / "images" / name, (32, 24))
    half = colmap.read(path)
    assert half.cameras.size(0) == (32, 24)
    assert torch.allclose(half.cameras.focal * 2, whole.cameras.focal)
    assert torch.allclose(half.cameras.centre * 2, whole.cameras.centre)
    save_picture(path / "images" / "d.png", (24, 32))
    with pytest.raises(CaptureError, match=r"d\.png is 24x32 pixels but .* 64x48 \(it seems rotated"):
        colmap.read(path)


def test_masks_beside_the_photos_are_used(written: Path, tmp_path: Path) -> None:
    path = copied(written, tmp_path)
    for i, name in enumerate(NAMES):
        save_picture(path / "masks" / f"{name}.png", seed=i, mode="L")
    capture = colmap.read(path)
    assert capture.masks is not None and capture.masks[2].shape == (48, 64, 1)
    assert values(capture.masks[2]) == [0, 255]
    (path / "masks" / "a.png.png").unlink()
    assert colmap.read(path).masks is None


def test_names_may_not_lead_out_of_the_capture(written: Path, tmp_path: Path) -> None:
    path = copied(written, tmp_path, form="txt")
    file = path / "sparse" / "0" / "images.txt"
    for evil in ("../../x/c.png", "/etc/c.png", "..\\..\\c.png"):
        file.write_text((written / "OPENCV/txt/sparse/0/images.txt").read_text().replace(" c.png", f" {evil}"))
        with pytest.raises(CaptureError, match="is outside"):
            colmap.read(path)


def test_damage_in_text_is_said_with_its_line(written: Path, tmp_path: Path) -> None:
    path = copied(written, tmp_path, form="txt")
    for stem, line in (("cameras", "7 OPENCV 64 48 1 2 3 x"), ("images", "1 2 3"), ("points3D", "1 2 3 4 5 6 700 8")):
        file = path / "sparse" / "0" / f"{stem}.txt"
        whole = file.read_text()
        file.write_text(whole + line + "\n")
        with pytest.raises(CaptureError, match=rf"{stem}\.txt, line \d+"):
            colmap.read(path)
        file.write_text(whole)
    colmap.read(path)


def test_poses_and_lenses_that_are_no_numbers_are_refused(written: Path, tmp_path: Path) -> None:
    path = copied(written, tmp_path, form="txt")
    file = path / "sparse" / "0" / "images.txt"
    good = file.read_text().splitlines()
    first = next(i for i, line in enumerate(good) if line.endswith("a.png"))
    for column, value in ((1, "nan"), (5, "inf"), (6, "1e30")):
        words = good[first].split()
        words[column] = value
        file.write_text("\n".join([*good[:first], " ".join(words), *good[first + 1 :]]))
        with pytest.raises(CaptureError, match=r"a\.png is not finite"):
            colmap.read(path)
    words = good[first].split()
    words[1:5] = ["0"] * 4
    file.write_text("\n".join([*good[:first], " ".join(words), *good[first + 1 :]]))
    with pytest.raises(CaptureError, match="quaternion"):
        colmap.read(path)
    file.write_text("\n".join(good))
    cameras = path / "sparse" / "0" / "cameras.txt"
    for line in ("7 PINHOLE 64 48 -60 62 33 23", "7 PINHOLE 64 48 nan 62 33 23", "7 PINHOLE 64 48 1e12 62 33 23"):
        cameras.write_text(line)
        with pytest.raises(CaptureError, match=r"\.png"):
            colmap.read(path)


def test_points_at_infinity_are_left_out_and_counted(written: Path, tmp_path: Path) -> None:
    path = copied(written, tmp_path, form="txt")
    with (path / "sparse" / "0" / "points3D.txt").open("a") as file:
        file.write("900 nan 0 0 1 2 3 0.5 3 0 5 0\n901 0 inf 0 1 2 3 0.5\n902 0 0 1e20 1 2 3 0.5 12 0\n")
    whole, capture = colmap.read(written / "OPENCV" / "txt"), colmap.read(path)
    assert whole.points is not None and capture.points is not None
    assert len(capture.points) == len(whole.points)
    assert torch.equal(torch.as_tensor(capture.points.view_counts), torch.as_tensor(whole.points.view_counts))
    assert "3 points" in capture.notes[0]


@pytest.mark.parametrize("stem", ["cameras", "images", "points3D"])
def test_a_count_beyond_the_file_is_refused_before_memory_is_taken(written: Path, tmp_path: Path, stem: str) -> None:
    path = copied(written, tmp_path)
    file = path / "sparse" / "0" / f"{stem}.bin"
    for count in (2**63, 2**40, 10**5):
        file.write_bytes(struct.pack("<Q", count) + file.read_bytes()[8:])
        with pytest.raises(CaptureError, match="more than its"):
            colmap.read(path)


def test_models_without_points_or_with_broken_references(written: Path, tmp_path: Path) -> None:
    path = copied(written, tmp_path)
    (path / "sparse" / "0" / "points3D.bin").unlink()
    assert colmap.read(path).points is None
    (path / "sparse" / "0" / "cameras.bin").write_bytes(struct.pack("<Q", 0))
    with pytest.raises(CaptureError, match="uses camera 7"):
        colmap.read(path)
    (path / "sparse" / "0" / "images.bin").write_bytes(b"")
    with pytest.raises(CaptureError, match="ends at byte 0"):
        colmap.read(path)


def test_other_folders_are_not_accepted(tmp_path: Path) -> None:
    assert not colmap.accepts(tmp_path)
    assert not colmap.accepts(tmp_path / "nowhere")
    with pytest.raises(CaptureError, match="no COLMAP model"):
        colmap.read(tmp_path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_escapes_as_anything_but_a_capture_error(written: Path, tmp_path: Path, data: st.DataObject) -> None:
    """Cut, flipped and overwritten bytes: the reader may refuse or may get by, but nothing else may happen."""
    form = data.draw(st.sampled_from(["bin", "txt"]))
    stem = data.draw(st.sampled_from(["cameras", "images", "points3D"]))
    source = written / "OPENCV" / form
    path = tmp_path / form
    if not path.exists():
        shutil.copytree(source, path)
    whole = (source / "sparse" / "0" / f"{stem}.{form}").read_bytes()
    broken = bytearray(whole[: data.draw(st.integers(0, len(whole)))] if data.draw(st.booleans()) else whole)
    for _ in range(data.draw(st.integers(0, 4))):
        if broken:
            at = data.draw(st.integers(0, len(broken) - 1))
            broken[at : at + 8] = data.draw(st.binary(min_size=1, max_size=8))
    file = path / "sparse" / "0" / f"{stem}.{form}"
    file.write_bytes(bytes(broken))
    try:
        capture = colmap.read(path)
    except CaptureError:
        pass
    else:
        assert np.isfinite(capture.cameras.world_from_cam.numpy()).all()
        assert capture.points is None or bool(capture.points.xyz.isfinite().all())
    finally:
        file.write_bytes(whole)
