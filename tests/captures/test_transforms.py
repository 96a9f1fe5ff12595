"""transforms.json and Blender scenes: axes, intrinsics, splits, masks, points, and damage."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plyfile import PlyData, PlyElement

from lumigraph.captures.readers import blender, checked_json, points_ply, transforms
from lumigraph.scene.cameras import generate_rays, project
from lumigraph.scene.errors import CaptureError

from .common import DATA, distinct_values, pose, save_image

OPENCV = {
    "fl_x": 60,
    "fl_y": 62,
    "cx": 33,
    "cy": 23,
    "w": 64,
    "h": 48,
    "k1": 0.05,
    "k2": -0.02,
    "p1": 3e-3,
    "p2": -4e-3,
}


def write(folder: Path, count: int = 10, file: str = "transforms.json", prefix: str = "images/", **top: Any) -> Any:
    """Write a dataset of `count` photos with random poses; returns the document, to be modified and saved again."""
    rng = np.random.default_rng(1)
    frames = []
    for i in range(count):
        save_image(folder / f"{prefix}{i:02d}.png", seed=i)
        frames.append({"file_path": f"{prefix}{i:02d}.png", "transform_matrix": pose(rng).tolist()})
    document = {**(top or OPENCV), "frames": frames}
    save(folder, document, file)
    return document


def save(folder: Path, document: Any, file: str = "transforms.json") -> None:
    (folder / file).write_text(json.dumps(document))


def test_transforms_camera_looks_along_minus_z_with_y_up(tmp_path: Path) -> None:
    """By definition, without a matrix product: a point ahead is at the image centre, one above it is higher."""
    document = write(tmp_path, 2, fl_x=60, w=64, h=48)
    capture = transforms.read(tmp_path)
    for i, frame in enumerate(document["frames"]):
        c2w = torch.tensor(frame["transform_matrix"])
        right, up, back, eye = c2w[:3].T
        points = torch.stack([eye - 2 * back, eye - 2 * back + 0.2 * up, eye - 2 * back + 0.2 * right])
        pixels, depth = project(capture.cameras[i], points)
        assert torch.allclose(pixels[0], torch.tensor([[32.0, 24.0], [32.0, 18.0], [38.0, 24.0]]), atol=1e-4)
        assert torch.allclose(depth, torch.full((1, 3), 2.0), atol=1e-5)


def test_transforms_intrinsics_at_top_or_in_frame(tmp_path: Path) -> None:
    document = write(tmp_path, 3)
    document["frames"][1] |= {"fl_x": 70, "k1": 0.5}
    save(tmp_path, document)
    cameras = transforms.read(tmp_path).cameras
    assert cameras.lens == "opencv" and cameras.distortion is not None
    assert cameras.focal.tolist() == [[60, 62], [70, 62], [60, 62]]
    assert cameras.centre.tolist() == [[33, 23]] * 3
    assert torch.allclose(cameras.distortion[0], torch.tensor([0.05, -0.02, 3e-3, -4e-3, 0, 0, 0, 0]))
    assert cameras.distortion[1, 0] == 0.5


@pytest.mark.parametrize(
    ("top", "focal", "centre", "lens"),
    [
        ({"camera_angle_x": math.pi / 2}, (32, 32), (32, 24), "pinhole"),
        ({"camera_angle_x": math.pi / 2, "camera_angle_y": math.pi / 2}, (32, 24), (32, 24), "pinhole"),
        ({"fl_x": 50}, (50, 50), (32, 24), "pinhole"),
        ({"fl_x": 50, "camera_angle_x": 1, "camera_angle_y": 1}, (50, 50), (32, 24), "pinhole"),
        ({"fl_x": 100, "w": 128, "h": 96, "cx": 60, "cy": 50}, (50, 50), (30, 25), "pinhole"),
        ({"fl_x": 50, "k1": 0.1, "camera_model": "PINHOLE"}, (50, 50), (32, 24), "pinhole"),
        ({"fl_x": 50, "k1": 0.1}, (50, 50), (32, 24), "opencv"),
        ({"fl_x": 50, "k1": 0.1, "camera_model": "OPENCV_FISHEYE"}, (50, 50), (32, 24), "fisheye"),
        ({"fl_x": 50, "is_fisheye": True}, (50, 50), (32, 24), "fisheye"),
        ({"fl_x": 50, "k6": 0.1, "camera_model": "FULL_OPENCV"}, (50, 50), (32, 24), "opencv"),
    ],
)
def test_transforms_reads_every_lens_form(
    tmp_path: Path, top: dict[str, Any], focal: tuple[float, ...], centre: tuple[float, ...], lens: str
) -> None:
    write(tmp_path, 2, **top)
    cameras = transforms.read(tmp_path).cameras
    assert torch.allclose(cameras.focal[0], torch.tensor(focal, dtype=torch.float32))
    assert torch.allclose(cameras.centre[0], torch.tensor(centre, dtype=torch.float32))
    assert cameras.lens == lens


def test_transforms_pinhole_among_distorted_lenses_gets_zeros(tmp_path: Path) -> None:
    document = write(tmp_path, 2, fl_x=50)
    document["frames"][1]["k1"] = 0.1
    save(tmp_path, document)
    cameras = transforms.read(tmp_path).cameras
    assert cameras.lens == "opencv" and cameras.distortion is not None
    assert cameras.distortion[:, 0].tolist() == pytest.approx([0, 0.1])
    document["frames"][1] |= {"camera_model": "OPENCV_FISHEYE"}
    save(tmp_path, document)
    with pytest.raises(CaptureError, match="mixes fisheye"):
        transforms.read(tmp_path)


def test_transforms_guesses_suffix_and_notes_missing_photos(tmp_path: Path) -> None:
    document = write(tmp_path, 10)
    for frame in document["frames"]:
        frame["file_path"] = "./" + frame["file_path"].removesuffix(".png").replace("/", "\\")
    save(tmp_path, document)
    (tmp_path / "images" / "03.png").unlink()
    capture = transforms.read(tmp_path)
    assert capture.names == tuple(f"{i:02d}.png" for i in range(10) if i != 3)
    assert capture.held_out.nonzero().flatten().tolist() == [0, 8]
    assert len(capture.notes) == 1 and "1 of 10" in capture.notes[0] and "03" in capture.notes[0]


@pytest.mark.parametrize("suffix", [".png", ""])
def test_transforms_uses_split_of_file(tmp_path: Path, suffix: str) -> None:
    document = write(tmp_path, 10)
    names = [f"images/{i:02d}{suffix}" for i in range(10)]
    parts = {"train_filenames": names[:6], "val_filenames": names[6:7], "test_filenames": names[7:9]}
    save(tmp_path, document | parts)
    capture = transforms.read(tmp_path)
    assert capture.names == tuple(f"{i:02d}.png" for i in (0, 1, 2, 3, 4, 5, 7, 8))
    assert capture.held_out.tolist() == [False] * 6 + [True] * 2
    assert "2 photos" in capture.notes[0]
    save(tmp_path, document | {"train_filenames": names[:6], "val_filenames": names[6:]})
    assert transforms.read(tmp_path).held_out.tolist() == [False] * 6 + [True] * 4
    save(tmp_path, document | {"test_filenames": names[7:]})
    assert transforms.read(tmp_path).held_out.tolist() == [False] * 7 + [True] * 3
    save(tmp_path, document | {"train_filenames": names[:6]})
    assert transforms.read(tmp_path).held_out.tolist() == [True] + [False] * 5
    save(tmp_path, document | {"test_filenames": names})
    with pytest.raises(CaptureError, match="no photo to train with"):
        transforms.read(tmp_path)


def test_transforms_masks_must_be_complete_and_match_sizes(tmp_path: Path) -> None:
    document = write(tmp_path, 3)
    for i, frame in enumerate(document["frames"]):
        save_image(tmp_path / f"masks/{i}.png", seed=i, mode="L")
        frame["mask_path"] = f"masks/{i}.png"
    save(tmp_path, document)
    masks = transforms.read(tmp_path).masks
    assert masks is not None and masks[1].shape == (48, 64, 1) and distinct_values(masks[1]) == [0, 255]
    save_image(tmp_path / "masks/1.png", (32, 24), mode="L")
    with pytest.raises(CaptureError, match=r"mask of images/01\.png is 32x24 .* 64x48"):
        transforms.read(tmp_path)
    (tmp_path / "masks/1.png").unlink()
    with pytest.raises(CaptureError, match="does not exist"):
        transforms.read(tmp_path)
    del document["frames"][1]["mask_path"]
    save(tmp_path, document)
    with pytest.raises(CaptureError, match=r"images/01\.png has no mask"):
        transforms.read(tmp_path)


def test_transforms_any_alpha_makes_all_photos_rgba(tmp_path: Path) -> None:
    write(tmp_path, 3)
    save_image(tmp_path / "images" / "01.png", mode="RGBA")
    capture = transforms.read(tmp_path)
    assert capture.has_alpha
    assert distinct_values(capture.photo(0)[..., 3]) == [255]
    assert len(distinct_values(capture.photo(1)[..., 3])) > 100


def test_transforms_reads_points_and_applied_transform(tmp_path: Path) -> None:
    document = write(tmp_path, 3)
    table = np.zeros(4, dtype=[(c, "f4") for c in "xyz"] + [(c, "u1") for c in ("red", "green", "blue")])
    table["x"], table["red"], table["z"] = [1, 2, 3, 4], [10, 20, 30, 255], [0, 0, np.nan, 1]
    PlyData([PlyElement.describe(table, "vertex")]).write(tmp_path / "sparse_pc.ply")
    transform = [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, -1, 0.5]]
    save(tmp_path, document | {"ply_file_path": "sparse_pc.ply", "applied_transform": transform, "applied_scale": 2})
    points = transforms.read(tmp_path).points
    assert points is not None and points.rgb is not None
    assert points.xyz[:, 0].tolist() == [1, 2, 4] and points.rgb[:, 0].tolist() == [10, 20, 255]
    assert torch.equal(
        torch.as_tensor(transforms.read_applied_transform(tmp_path)), 2 * torch.tensor(transform).double()
    )
    save(tmp_path, document | {"ply_file_path": "gone.ply"})
    assert "gone.ply" in transforms.read(tmp_path).notes[0]
    assert transforms.read_applied_transform(tmp_path) is None


def changed_frame(document: Any, **changes: Any) -> Any:
    copy = json.loads(json.dumps(document))
    copy["frames"][1] |= changes
    return copy


def matrix_with(row: int, column: int, value: float) -> list[list[float]]:
    matrix = np.eye(4).tolist()
    matrix[row][column] = value
    return list(matrix)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transform_matrix": matrix_with(0, 3, math.nan)}, r"transform_matrix of images/01\.png .* finite"),
        ({"transform_matrix": matrix_with(0, 0, math.inf)}, r"transform_matrix of images/01\.png .* finite"),
        ({"transform_matrix": matrix_with(0, 0, 10**400)}, r"images/01\.png .* finite"),
        ({"transform_matrix": matrix_with(0, 3, 1e30)}, r"images/01\.png is not finite"),
        ({"transform_matrix": matrix_with(0, 0, 1.1)}, r"images/01\.png is not rigid"),
        ({"transform_matrix": matrix_with(2, 2, -1)}, r"images/01\.png is not rigid"),
        ({"transform_matrix": matrix_with(3, 0, 1)}, r"images/01\.png .* 0 0 0 1"),
        ({"transform_matrix": [[1, 2], [3, 4], [5, 6]]}, r"images/01\.png .* rows of 4"),
        ({"transform_matrix": "eye"}, r"images/01\.png .* 3 or 4 rows"),
        ({"transform_matrix": None}, r"images/01\.png .* 3 or 4 rows"),
        ({"fl_x": 0}, r"images/01\.png must be positive"),
        ({"fl_x": "60"}, r"fl_x of images/01\.png"),
        ({"fl_x": True}, r"fl_x of images/01\.png"),
        ({"k1": math.nan}, r"k1 of images/01\.png"),
        ({"k4": 0.1}, "k4"),
        ({"camera_model": "EQUIRECTANGULAR"}, "EQUIRECTANGULAR, which is not supported"),
        ({"camera_model": ["OPENCV"]}, "not supported"),
        ({"w": 48, "h": 64}, r"images/01\.png is 64x48 pixels but .* 48x64 \(it seems rotated"),
        ({"w": 64, "h": 64}, r"images/01\.png is 64x48 pixels but .* 64x64:"),
        ({"file_path": "../../etc/passwd.png"}, "is outside"),
        ({"file_path": "/etc/passwd.png"}, "is outside"),
        ({"file_path": "a" * 300}, "too long"),
        ({"file_path": "a\0b"}, "file_path of frame 1"),
        ({"file_path": 3}, "file_path of frame 1"),
        ({"file_path": "images/00.png"}, "lists a photo twice"),
    ],
)
def test_transforms_error_names_damaged_frame(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    save(tmp_path, changed_frame(write(tmp_path, 3), **change))
    with pytest.raises(CaptureError, match=message):
        transforms.read(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b"\xff\xfe", b'{"frames": []}', b'{"frames": [3]}', b"[" * 100_000, b'{"fl_x": 1}']
)
def test_transforms_broken_json_raises_capture_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "transforms.json").write_bytes(content)
    with pytest.raises(CaptureError, match=r"transforms\.json"):
        transforms.read(tmp_path)


def test_transforms_rejects_large_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 3)
    monkeypatch.setattr(checked_json, "MAX_JSON_BYTES", 100)
    with pytest.raises(CaptureError, match="too much"):
        transforms.read(tmp_path)


junk = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS: tuple[str, ...] = (
    "fl_x",
    "w",
    "h",
    "cx",
    "k1",
    "k4",
    "camera_model",
    "file_path",
    "transform_matrix",
    "mask_path",
)
KEYS += ("frames", "train_filenames", "test_filenames", "ply_file_path", "camera_angle_x", "is_fisheye")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(location=st.sampled_from(["top", "frame"]), key=st.sampled_from(KEYS), value=junk)
def test_transforms_junk_raises_only_capture_error(tmp_path: Path, location: str, key: str, value: Any) -> None:
    document = write(tmp_path, 2) if not (tmp_path / "images").exists() else json.loads((tmp_path / "good").read_text())
    save(tmp_path, document, "good")
    save(tmp_path, document | {key: value} if location == "top" else changed_frame(document, **{key: value}))
    try:
        transforms.read(tmp_path)
    except CaptureError:
        pass
    finally:
        save(tmp_path, document)


# ------------------------------------------------------------------------------------------------------- points_ply


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_points_ply_reads_every_encoding(tmp_path: Path, text: bool, order: str) -> None:
    rng = np.random.default_rng(0)
    kinds = [("x", "f8"), ("y", "f4"), ("nx", "f4"), ("z", "f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1")]
    table = np.zeros(50, dtype=kinds)
    for name, kind in kinds:
        table[name] = rng.integers(0, 256, 50) if kind == "u1" else rng.normal(size=50)
    faces = np.zeros(1, dtype=[("vertex_indices", "i4", (3,))])
    elements = [PlyElement.describe(table, "vertex"), PlyElement.describe(faces, "face")]
    PlyData(elements, text=text, byte_order="=" if text else order).write(tmp_path / "p.ply")
    points = points_ply.read(tmp_path / "p.ply")
    assert points.rgb is not None
    assert np.allclose(points.xyz.numpy(), np.stack([table[c] for c in "xyz"], axis=1), atol=1e-5)
    assert np.array_equal(points.rgb.numpy(), np.stack([table[c] for c in ("red", "green", "blue")], axis=1))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), text=st.booleans())
def test_points_ply_damage_raises_only_capture_error(tmp_path: Path, data: st.DataObject, text: bool) -> None:
    table = np.zeros(5, dtype=[(c, "f4") for c in "xyz"])
    PlyData([PlyElement.describe(table, "vertex")], text=text).write(tmp_path / "p.ply")
    content = bytearray((tmp_path / "p.ply").read_bytes())
    for _ in range(data.draw(st.integers(0, 3))):
        offset = data.draw(st.integers(0, len(content) - 1))
        content[offset : offset + 8] = data.draw(
            st.binary(max_size=8) | st.sampled_from([b"99999999", b"double x", b"\n"])
        )
    (tmp_path / "p.ply").write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    with contextlib.suppress(CaptureError):
        points_ply.read(tmp_path / "p.ply")


# ---------------------------------------------------------------------------------------------------------- blender


def test_blender_holds_out_test_split(tmp_path: Path) -> None:
    for part, count in (("train", 6), ("val", 3), ("test", 4)):
        document = write(tmp_path, count, f"transforms_{part}.json", f"./{part}/r_", camera_angle_x=0.7)
        for frame in document["frames"]:
            name = frame["file_path"]
            save_image(tmp_path / name, mode="RGBA")
            frame["file_path"] = name.removesuffix(".png")
        save(tmp_path, document, f"transforms_{part}.json")
    assert blender.accepts(tmp_path) and not transforms.accepts(tmp_path)
    capture = blender.read(tmp_path)
    assert capture.names == (*(f"test/r_{i:02d}.png" for i in range(4)), *(f"train/r_{i:02d}.png" for i in range(6)))
    assert capture.held_out.tolist() == [True] * 4 + [False] * 6
    assert capture.has_alpha and capture.photo(0).shape == (48, 64, 4)
    assert capture.cameras.focal[0].tolist() == pytest.approx([0.5 * 64 / math.tan(0.35)] * 2)
    assert capture.source == "blender" and capture.notes == ()
    (tmp_path / "transforms_test.json").unlink()
    capture = blender.read(tmp_path)
    assert capture.held_out.tolist() == [True] + [False] * 5
    assert "every eighth" in capture.notes[0]


@pytest.mark.skipif(not (DATA / "lego").is_dir(), reason="the shared lego capture is absent")
def test_blender_reads_lego() -> None:
    assert blender.accepts(DATA / "lego")
    capture = blender.read(DATA / "lego")
    assert len(capture) == 300 and int(capture.held_out.sum()) == 200
    assert capture.cameras.focal[0].tolist() == pytest.approx([1111.11] * 2, abs=0.01)
    # The cameras are on a sphere of radius 4.03 around the bulldozer and look at its centre.
    assert capture.cameras.positions.norm(dim=1).tolist() == pytest.approx([4.0311] * 300, abs=1e-3)
    pixels, _ = project(capture.cameras, torch.zeros(1, 3))
    assert torch.allclose(pixels[:, 0], torch.tensor([400.0, 400.0]), atol=0.1)
    assert len(distinct_values(capture.photo(0)[..., 3])) > 2


@pytest.mark.skipif(not (DATA / "fox").is_dir(), reason="the shared fox capture is absent")
def test_transforms_reads_fox() -> None:
    capture = transforms.read(DATA / "fox")
    assert len(capture) == 50 and capture.cameras.lens == "opencv"
    assert capture.cameras.size(0) == (1080, 1920)
    assert "17 of 67" in capture.notes[0]
    assert capture.held_out.nonzero().flatten().tolist() == [0, 8, 16, 24, 32, 40, 48]
    # A phone moved around a fox: the optical axes meet in front of every camera.
    centres = torch.arange(50)
    axes = generate_rays(capture.cameras, centres, capture.cameras.centre)
    a = torch.eye(3) - axes.directions[:, :, None] * axes.directions[:, None, :]
    focus = torch.linalg.solve(a.sum(dim=0), (a @ axes.origins[:, :, None]).sum(dim=0))[:, 0]
    _, depth = project(capture.cameras, focus[None])
    assert (depth > 0.5).all()
