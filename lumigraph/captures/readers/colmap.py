"""COLMAP's sparse models, binary and text (COLMAP documentation, "Output Format").

`cameras`, `images` and `points3D` are read. COLMAP 4 also writes `rigs` and `frames`, which add nothing to poses: its
`images` still contain each image's own cam_from_world ("fully compatible with old outputs").
COLMAP's axes are OpenCV's and its pixel corner is (0, 0), as ours; its poses are inverted once, here.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lumigraph.captures.readers.assemble import (
    MAX_COORDINATE,
    MAX_LISTED_NAMES,
    Intrinsics,
    View,
    assemble,
    resolve_inside,
    sort_by_name,
)
from lumigraph.scene.assets import Points
from lumigraph.scene.cameras import Lens
from lumigraph.scene.capture import Capture
from lumigraph.scene.errors import CaptureError

NAME = "colmap"
MAX_TEXT_BYTES = 512 * 2**20
COLMAP_PHOTO_FOLDERS = ("images", "input")  # COLMAP's own name, and the one of the 3DGS reference implementation

# Model id -> (name, number of parameters, lens, index of each coefficient in our order); see colmap/sensor/models.h.
# One focal length precedes cx, cy if the model's name contains SIMPLE or RADIAL, two otherwise.
COLMAP_MODELS: dict[int, tuple[str, int, Lens, tuple[int, ...]]] = {
    0: ("SIMPLE_PINHOLE", 3, "pinhole", ()),
    1: ("PINHOLE", 4, "pinhole", ()),
    2: ("SIMPLE_RADIAL", 4, "opencv", (0,)),
    3: ("RADIAL", 5, "opencv", (0, 1)),
    4: ("OPENCV", 8, "opencv", (0, 1, 2, 3)),
    5: ("OPENCV_FISHEYE", 8, "fisheye", (0, 1, 2, 3)),
    6: ("FULL_OPENCV", 12, "opencv", (0, 1, 2, 3, 4, 5, 6, 7)),
    8: ("SIMPLE_RADIAL_FISHEYE", 4, "fisheye", (0,)),
    9: ("RADIAL_FISHEYE", 5, "fisheye", (0, 1)),
    14: ("SIMPLE_FISHEYE", 3, "fisheye", ()),
    15: ("FISHEYE", 4, "fisheye", ()),
}
# Named in errors only.
UNSUPPORTED_MODELS = {7: "FOV", 10: "THIN_PRISM_FISHEYE", 11: "RAD_TAN_THIN_PRISM_FISHEYE", 12: "SIMPLE_DIVISION"}
UNSUPPORTED_MODELS |= {13: "DIVISION", 16: "EUCM", 17: "EQUIRECTANGULAR"}
COLMAP_MODEL_IDS = {model[0]: number for number, model in COLMAP_MODELS.items()}


def accepts(path: Path) -> bool:
    """Return True for a folder with a sparse model in one of the usual places (see `find_models`)."""
    return path.is_dir() and bool(find_models(path))


def read(path: Path) -> Capture:
    """Read the largest model below `path`. Every eighth view is held out.

    Raises CaptureError if a file is damaged, a lens is not supported, or no photo of the model is found.
    """
    model_folders = find_models(path)
    if not model_folders:
        raise CaptureError(f"{path} holds no COLMAP model (cameras, images and points3D as .bin or .txt)")
    counts = {model: _image_count(model) for model in model_folders}
    model = max(model_folders, key=lambda m: counts[m])  # not the first: COLMAP may write several, in any order
    notes = []
    if len(model_folders) > 1:
        other_count = sum(counts.values()) - counts[model]
        notes.append(
            f"used the largest of {len(model_folders)} models, {model.name}, with {counts[model]} photos "
            f"(others: {other_count})"
        )
    cameras, images = _read_cameras(model), _read_images(model)
    views, missing = _views(path, model, cameras, images)
    if missing:
        name_list = ", ".join(missing[:MAX_LISTED_NAMES]) + (", ..." if len(missing) > MAX_LISTED_NAMES else "")
        notes.append(f"{len(missing)} of {len(images)} photos of the model are missing and left out: {name_list}")
    number_of = {view.name: number for number, view in enumerate(views)}
    numbers = {image.id: number_of[image.name] for image in images if image.name in number_of}
    points, invalid_count = _points(_read_points(model), numbers)
    if invalid_count:
        notes.append(f"{invalid_count} points with infinite or absurd coordinates are left out")
    return assemble(views, model, NAME, points, notes)


def find_models(path: Path) -> list[Path]:
    """Model folders below `path`: sparse/N, sparse, colmap/sparse/N, colmap/sparse, N and the folder itself."""
    model_folders = []
    for base in (path / "sparse", path / "colmap" / "sparse", path):
        if base.is_dir():
            subfolders = sorted(child for child in base.iterdir() if child.name.isdigit() and child.is_dir())
            model_folders += [
                folder
                for folder in (*subfolders, base)
                if _find_file(folder, "images") and _find_file(folder, "cameras")
            ]
    return model_folders


def _find_file(model: Path, stem: str) -> Path | None:
    """Path of stem.bin or stem.txt, or None; binary is preferred, as in COLMAP."""
    candidates = (model / f"{stem}.bin", model / f"{stem}.txt")
    return next((file for file in candidates if file.is_file()), None)


def _require_file(model: Path, stem: str) -> Path:
    file = _find_file(model, stem)
    if file is None:
        raise CaptureError(f"{model} has no {stem}.bin or {stem}.txt")
    return file


# ------------------------------------------------------------------------------------------------- records -> views


@dataclass(frozen=True)
class _Image:
    id: int
    name: str
    camera: int
    quaternion: tuple[float, float, float, float]  # w x y z, cam from world
    translation: tuple[float, float, float]


@dataclass
class _PointTable:
    """Points as arrays; point i is seen by `images[starts[i] : starts[i + 1]]` (COLMAP image ids)."""

    xyz: NDArray[np.float64]  # (N, 3)
    rgb: NDArray[np.uint8]  # (N, 3)
    starts: NDArray[np.int64]  # (N + 1,)
    images: NDArray[np.int64]  # (sum,)


def _views(
    path: Path, model: Path, cameras: dict[int, Intrinsics], images: list[_Image]
) -> tuple[list[View], list[str]]:
    """(views in name order, names of missing photos)."""
    if not images:
        raise CaptureError(f"{model} holds no registered photo")
    if len({image.id for image in images}) != len(images):
        raise CaptureError(f"{model} gives two images the same id: write the model again")
    folder = _photo_folder(path, images)
    views, missing = [], []
    for image in images:
        if image.camera not in cameras:
            raise CaptureError(f"{image.name} in {model} uses camera {image.camera}, which the model does not define")
        photo = resolve_inside(folder, image.name)
        if photo.is_file():
            views.append(
                View(image.name, photo, _world_from_cam(image), cameras[image.camera], _mask(folder, image.name))
            )
        else:
            missing.append(image.name)
    if not views:
        raise CaptureError(
            f"none of the {len(images)} photos of {model} is found below {path}: put them into {path}/images"
        )
    if not all(view.mask for view in views):  # COLMAP uses a photo without a mask in full; a Capture has all or none
        views = [View(v.name, v.photo, v.world_from_cam, v.intrinsics) for v in views]
    return sort_by_name(views), missing


def _photo_folder(path: Path, images: list[_Image]) -> Path:
    """The folder with most of the photos: images/, input/ or the folder itself, of `path` or up to two levels above."""
    roots = [path]
    if path.name == "sparse" or path.name.isdigit():  # `path` is the model: its capture is above
        roots += [path.parent, path.parent.parent]
    roots.append(path / "colmap")
    candidates = [folder for root in roots for folder in (*(root / name for name in COLMAP_PHOTO_FOLDERS), root)]
    return max(candidates, key=lambda folder: sum(resolve_inside(folder, image.name).is_file() for image in images))


def _mask(folder: Path, name: str) -> Path | None:
    """masks/NAME.png next to the photos' folder, by COLMAP's convention; None if there is none."""
    mask = resolve_inside(folder.parent / "masks", f"{name}.png")
    return mask if mask.is_file() else None


def _world_from_cam(image: _Image) -> NDArray[np.float64]:
    """(3, 4): the inverse of COLMAP's cam_from_world, a Hamilton quaternion w x y z and a translation."""
    norm = math.hypot(*image.quaternion)
    if not 1e-6 < norm < MAX_COORDINATE:
        raise CaptureError(f"the pose of {image.name} is not finite: its quaternion is {image.quaternion}")
    if not all(abs(t) < MAX_COORDINATE for t in image.translation):
        raise CaptureError(f"the pose of {image.name} is not finite: its translation is {image.translation}")
    w, x, y, z = (value / norm for value in image.quaternion)
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    return np.concatenate([rotation.T, -rotation.T @ np.array(image.translation)[:, None]], axis=1)


def _intrinsics(model: int, size: tuple[int, int], params: tuple[float, ...], location: str) -> Intrinsics:
    name, count, lens, offsets = COLMAP_MODELS[model]
    if len(params) != count:
        raise CaptureError(f"{location}: {name} takes {count} parameters, not {len(params)}")
    focals = count - 2 - len(offsets)
    distortion = [0.0] * {"pinhole": 0, "opencv": 8, "fisheye": 4}[lens]
    for index, value in zip(offsets, params[focals + 2 :], strict=True):
        distortion[index] = value
    return Intrinsics(
        size=size,
        focal=(params[0], params[focals - 1]),
        centre=(params[focals], params[focals + 1]),
        lens=lens,
        distortion=tuple(distortion),
    )


def _check_model(model: int, location: str) -> int:
    if model not in COLMAP_MODELS:
        name = UNSUPPORTED_MODELS.get(model, f"number {model}")
        raise CaptureError(
            f"{location}: the camera model {name} is not supported; run COLMAP's image_undistorter first"
        )
    return model


def _points(table: _PointTable, numbers: dict[int, int]) -> tuple[Points | None, int]:
    """(points with the indices of their views, number of points left out). `numbers`: COLMAP image id -> view index."""
    if len(table.xyz) == 0:
        return None, 0
    counts = np.diff(table.starts)
    ids = np.array(sorted(numbers), dtype=np.int64)
    views = np.array([numbers[i] for i in ids], dtype=np.int64)
    index = np.searchsorted(ids, table.images).clip(max=len(ids) - 1)
    is_known = np.equal(ids[index], table.images)
    is_valid = np.all(np.abs(table.xyz) < MAX_COORDINATE, axis=1)  # false for NaN as well
    point = np.repeat(np.arange(len(counts)), counts)
    is_used = is_known & is_valid[point]
    # A view may observe a point at two keypoints; it counts once.
    pairs = np.unique(np.stack([point[is_used], views[index[is_used]]]), axis=1)
    offsets = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(np.bincount(pairs[0], minlength=len(counts)), out=offsets[1:])
    return (
        Points(
            xyz=torch.from_numpy(table.xyz[is_valid].astype(np.float32)),
            rgb=torch.from_numpy(table.rgb[is_valid]),
            view_offsets=torch.from_numpy(offsets[np.append(is_valid, True)]),
            view_indices=torch.from_numpy(pairs[1].astype(np.int32)),
        ),
        int((~is_valid).sum()),
    )


# ------------------------------------------------------------------------------------------------------------ files


def _image_count(model: Path) -> int:
    file = _require_file(model, "images")
    if file.suffix == ".txt":
        return len(_read_images_text(file))
    with _BinaryReader(file) as data:
        return data.read_count(73)


def _read_cameras(model: Path) -> dict[int, Intrinsics]:
    file = _require_file(model, "cameras")
    return _read_cameras_text(file) if file.suffix == ".txt" else _read_cameras_binary(file)


def _read_images(model: Path) -> list[_Image]:
    file = _require_file(model, "images")
    return _read_images_text(file) if file.suffix == ".txt" else _read_images_binary(file)


def _read_points(model: Path) -> _PointTable:
    file = _find_file(model, "points3D")
    if file is None:
        return _point_table([], [], [], [])
    return _read_points_text(file) if file.suffix == ".txt" else _read_points_binary(file)


def _point_table(xyz: list[list[float]], rgb: list[list[int]], lengths: list[int], images: list[int]) -> _PointTable:
    starts = np.concatenate([[0], np.cumsum(np.array(lengths, dtype=np.int64))]).astype(np.int64)
    return _PointTable(
        np.array(xyz, dtype=np.float64).reshape(-1, 3),
        np.array(rgb, dtype=np.uint8).reshape(-1, 3),
        starts,
        np.array(images, dtype=np.int64),
    )


@dataclass
class _BinaryReader:
    """Sequential reader of a memory-mapped file. Raises CaptureError, with the byte offset, beyond its end."""

    path: Path
    offset: int = 0  # of the next byte to read
    data: mmap.mmap | bytes = field(default=b"", repr=False)

    def __enter__(self) -> _BinaryReader:
        try:
            with self.path.open("rb") as file:
                if self.path.stat().st_size:  # an empty file cannot be mapped
                    self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise CaptureError(f"{self.path} cannot be read ({error.strerror})") from error
        return self

    def __exit__(self, *_: object) -> None:
        if isinstance(self.data, mmap.mmap):
            self.data.close()

    def unpack(self, layout: str) -> tuple[int | float, ...]:
        """Unpack the next values, little-endian, by a format of `struct`."""
        self.skip(struct.calcsize("<" + layout))
        return struct.unpack_from("<" + layout, self.data, self.offset - struct.calcsize("<" + layout))

    def skip(self, size: int) -> None:
        if size > len(self.data) - self.offset:
            raise CaptureError(
                f"{self.path} ends at byte {len(self.data)} before the end of its records: it is truncated or damaged"
            )
        self.offset += size

    def read_count(self, size: int) -> int:
        """Read a 64-bit count of records of at least `size` bytes each, checked against the remaining bytes."""
        (count,) = self.unpack("Q")
        if count * size > len(self.data) - self.offset:
            raise CaptureError(f"{self.path} promises {count} records, more than its {len(self.data)} bytes can hold")
        return int(count)

    def read_string(self) -> str:
        """Read a NUL-terminated string."""
        end = self.data.find(b"\0", self.offset, self.offset + 4096)
        if end < 0:
            raise CaptureError(f"{self.path} has an unterminated name at byte {self.offset}: it is damaged")
        raw = self.data[self.offset : end]
        self.offset = end + 1
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise CaptureError(f"{self.path} has a name that is not UTF-8 at byte {self.offset}") from error


def _read_cameras_binary(file: Path) -> dict[int, Intrinsics]:
    cameras = {}
    with _BinaryReader(file) as data:
        for _ in range(data.read_count(24)):
            number, model, width, height = (int(v) for v in data.unpack("IiQQ"))
            location = f"camera {number} in {file}"
            params = data.unpack(f"{COLMAP_MODELS[_check_model(model, location)][1]}d")
            cameras[number] = _intrinsics(model, (width, height), params, location)
    return cameras


def _read_images_binary(file: Path) -> list[_Image]:
    images = []
    with _BinaryReader(file) as data:
        for _ in range(data.read_count(73)):
            number, w, x, y, z, tx, ty, tz, camera = data.unpack("I7dI")
            name = _checked_name(data.read_string(), file)
            data.skip(24 * data.read_count(24))  # keypoints (x, y, point id); points3D lists its images
            images.append(_Image(int(number), name, int(camera), (w, x, y, z), (tx, ty, tz)))
    return images


def _read_points_binary(file: Path) -> _PointTable:
    """Read records of 51 bytes (id, xyz, rgb, error, track length) and 8 per track element (image id, keypoint).

    Only the walk over records is a Python loop; the fields of all points are then gathered together.
    """
    with _BinaryReader(file) as data:
        count = data.read_count(51)
        heads = np.empty(count, dtype=np.int64)
        lengths = np.empty(count, dtype=np.int64)
        length_of = struct.Struct("<Q").unpack_from
        for i in range(count):
            heads[i] = data.offset
            data.skip(51)
            (length,) = length_of(data.data, data.offset - 8)
            data.skip(8 * length)
            lengths[i] = length
        raw = np.frombuffer(data.data[:], dtype=np.uint8)
    starts = np.zeros(count + 1, dtype=np.int64)
    np.cumsum(lengths, out=starts[1:])
    element = np.repeat(heads + 51, lengths) + 8 * (np.arange(starts[-1]) - np.repeat(starts[:-1], lengths))
    return _PointTable(
        _gather(raw, heads + 8, 24).view("<f8").astype(np.float64),
        _gather(raw, heads + 32, 3),
        starts,
        _gather(raw, element, 4).view("<u4").reshape(-1).astype(np.int64),
    )


def _gather(raw: NDArray[np.uint8], offsets: NDArray[np.int64], width: int) -> NDArray[np.uint8]:
    """Gather `width` bytes at each of `offsets` (N,), which need not be aligned: (N, width)."""
    rows = np.empty((len(offsets), width), dtype=np.uint8)
    for column in range(width):
        rows[:, column] = raw[offsets + column]
    return rows


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, text) without comment lines. Empty lines are kept: images.txt needs them."""
    try:
        if file.stat().st_size > MAX_TEXT_BYTES:
            raise CaptureError(f"{file} is larger than {MAX_TEXT_BYTES >> 20} MB: convert the model to binary")
        with file.open(encoding="utf-8") as text:
            for number, line in enumerate(text, start=1):
                if not line.startswith("#"):
                    yield number, line.strip()
    except OSError as error:
        raise CaptureError(f"{file} cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise CaptureError(f"{file} is not UTF-8 text") from error


def _syntax_error(file: Path, line: int, expected: str) -> CaptureError:
    return CaptureError(f"{file}, line {line}: this is not {expected}")


def _read_cameras_text(file: Path) -> dict[int, Intrinsics]:
    cameras = {}
    for line, text in _lines(file):
        if not text:
            continue
        try:
            number, name, width, height, *params = text.split()
            size, values = (int(width), int(height)), tuple(float(p) for p in params)
            key = int(number)
        except ValueError as error:
            raise _syntax_error(file, line, "a camera: CAMERA_ID MODEL WIDTH HEIGHT PARAMS") from error
        if name not in COLMAP_MODEL_IDS:
            raise CaptureError(f"{file}, line {line}: the camera model {name[:40]} is not supported")
        cameras[key] = _intrinsics(COLMAP_MODEL_IDS[name], size, values, f"{file}, line {line}")
    return cameras


def _read_images_text(file: Path) -> list[_Image]:
    images = []
    lines = _lines(file)
    for line, text in lines:
        if not text:
            continue
        try:
            number, w, x, y, z, tx, ty, tz, camera, name = text.split(maxsplit=9)
            quaternion, translation = (float(w), float(x), float(y), float(z)), (float(tx), float(ty), float(tz))
            images.append(_Image(int(number), _checked_name(name, file), int(camera), quaternion, translation))
        except ValueError as error:
            raise _syntax_error(file, line, "an image: IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME") from error
        next(lines, None)  # the keypoint line, which may be empty
    return images


def _read_points_text(file: Path) -> _PointTable:
    xyz: list[list[float]] = []
    rgb: list[list[int]] = []
    lengths: list[int] = []
    images: list[int] = []
    for line, text in _lines(file):
        if not text:
            continue
        parts = text.split()
        try:
            xyz.append([float(p) for p in parts[1:4]])
            rgb.append([int(p) for p in parts[4:7]])
            image_ids = [int(p) for p in parts[8::2]]
        except ValueError as error:
            raise _syntax_error(file, line, "a point: POINT3D_ID X Y Z R G B ERROR TRACK") from error
        if len(parts) < 8 or len(parts) % 2 or not all(0 <= c <= 255 for c in rgb[-1]):
            raise _syntax_error(file, line, "a point: POINT3D_ID X Y Z R G B ERROR TRACK")
        lengths.append(len(image_ids))
        images += image_ids
    if any(not 0 <= i < 2**32 for i in images):
        raise CaptureError(f"{file} names an image id that is no 32-bit number")
    return _point_table(xyz, rgb, lengths, images)


def _checked_name(name: str, file: Path) -> str:
    if not name or "\0" in name:
        raise CaptureError(f"{file} holds an image without a name")
    return name
