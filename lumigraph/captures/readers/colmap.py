"""COLMAP's sparse models, binary and text (COLMAP documentation, "Output Format").

`cameras`, `images` and `points3D` are read; COLMAP 4 also writes `rigs` and `frames`, but its `images` still carry each
image's own cam_from_world ("fully compatible with old outputs"), so the other two add nothing to poses.
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

from lumigraph.captures.readers.assemble import LARGEST, Intrinsics, View, assemble, in_name_order, inside
from lumigraph.scene.assets import Points
from lumigraph.scene.cameras import Lens
from lumigraph.scene.capture import Capture
from lumigraph.scene.errors import CaptureError

NAME = "colmap"
MAX_TEXT_BYTES = 512 * 2**20
SPOKEN_NAMES = 5
PHOTO_FOLDERS = ("images", "input")  # COLMAP's own name, and the one of the 3DGS reference implementation

# model id -> (name, number of parameters, lens, where the coefficients go in our order); see colmap/sensor/models.h.
# One focal length precedes cx, cy where the model's name says SIMPLE or RADIAL, two otherwise.
MODELS: dict[int, tuple[str, int, Lens, tuple[int, ...]]] = {
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
# Only needed to say by name what is not supported.
OTHERS = {7: "FOV", 10: "THIN_PRISM_FISHEYE", 11: "RAD_TAN_THIN_PRISM_FISHEYE", 12: "SIMPLE_DIVISION", 13: "DIVISION"}
OTHERS |= {16: "EUCM", 17: "EQUIRECTANGULAR"}
IDS = {model[0]: number for number, model in MODELS.items()}


def accepts(path: Path) -> bool:
    """True for a folder with a sparse model in one of the usual places (see `models`)."""
    return path.is_dir() and bool(models(path))


def read(path: Path) -> Capture:
    """The capture of the largest model below `path`. Every eighth view is held out.

    Raises CaptureError when a file is damaged, a lens is not supported, or no photo of the model is found.
    """
    found = models(path)
    if not found:
        raise CaptureError(f"{path} holds no COLMAP model (cameras, images and points3D as .bin or .txt)")
    counts = {model: _image_count(model) for model in found}
    model = max(found, key=lambda m: counts[m])  # not the first: mapping may leave several, in any order
    notes = []
    if len(found) > 1:
        rest = sum(counts.values()) - counts[model]
        notes.append(
            f"used the largest of {len(found)} models, {model.name}, with {counts[model]} photos (others: {rest})"
        )
    cameras, images = _read_cameras(model), _read_images(model)
    views, missing = _views(path, model, cameras, images)
    if missing:
        named = ", ".join(missing[:SPOKEN_NAMES]) + (", ..." if len(missing) > SPOKEN_NAMES else "")
        notes.append(f"{len(missing)} of {len(images)} photos of the model are missing and left out: {named}")
    number_of = {view.name: number for number, view in enumerate(views)}
    numbers = {image.id: number_of[image.name] for image in images if image.name in number_of}
    points, bad = _points(_read_points(model), numbers)
    if bad:
        notes.append(f"{bad} points with infinite or absurd coordinates are left out")
    return assemble(views, model, NAME, points, notes)


def models(path: Path) -> list[Path]:
    """Model folders below `path`: sparse/N, sparse, colmap/sparse/N, colmap/sparse, the folder itself, N below it."""
    found = []
    for base in (path / "sparse", path / "colmap" / "sparse", path):
        if base.is_dir():
            numbered = sorted(child for child in base.iterdir() if child.name.isdigit() and child.is_dir())
            found += [folder for folder in (*numbered, base) if _file(folder, "images") and _file(folder, "cameras")]
    return found


def _file(model: Path, stem: str) -> Path | None:
    """stem.bin or stem.txt; binary wins, as in COLMAP."""
    candidates = (model / f"{stem}.bin", model / f"{stem}.txt")
    return next((file for file in candidates if file.is_file()), None)


def _required(model: Path, stem: str) -> Path:
    file = _file(model, stem)
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
class _Track:
    """Points as arrays; point i was seen by `images[starts[i] : starts[i + 1]]` (COLMAP image ids)."""

    xyz: NDArray[np.float64]  # (N, 3)
    rgb: NDArray[np.uint8]  # (N, 3)
    starts: NDArray[np.int64]  # (N + 1,)
    images: NDArray[np.int64]  # (sum,)


def _views(
    path: Path, model: Path, cameras: dict[int, Intrinsics], images: list[_Image]
) -> tuple[list[View], list[str]]:
    """(views in name order, names of photos that are not there)."""
    if not images:
        raise CaptureError(f"{model} holds no registered photo")
    if len({image.id for image in images}) != len(images):
        raise CaptureError(f"{model} gives two images the same id: write the model again")
    folder = _photo_folder(path, images)
    views, missing = [], []
    for image in images:
        if image.camera not in cameras:
            raise CaptureError(f"{image.name} in {model} uses camera {image.camera}, which the model does not define")
        photo = inside(folder, image.name)
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
    if not all(view.mask for view in views):  # COLMAP's own rule: a photo without a mask is used whole
        views = [View(v.name, v.photo, v.world_from_cam, v.intrinsics) for v in views]
    return in_name_order(views), missing


def _photo_folder(path: Path, images: list[_Image]) -> Path:
    """The folder in which most of the photos are: images/ or the folder itself, of `path` or up to two floors above."""
    roots = [path]
    if path.name == "sparse" or path.name.isdigit():  # the model itself was named: its capture lies above
        roots += [path.parent, path.parent.parent]
    roots.append(path / "colmap")
    candidates = [folder for root in roots for folder in (*(root / name for name in PHOTO_FOLDERS), root)]
    return max(candidates, key=lambda folder: sum(inside(folder, image.name).is_file() for image in images))


def _mask(folder: Path, name: str) -> Path | None:
    """masks/NAME.png beside the photos' folder, COLMAP's convention."""
    mask = inside(folder.parent / "masks", f"{name}.png")
    return mask if mask.is_file() else None


def _world_from_cam(image: _Image) -> NDArray[np.float64]:
    """(3, 4): the inverse of COLMAP's cam_from_world, from a Hamilton quaternion w x y z and a translation."""
    norm = math.hypot(*image.quaternion)
    if not 1e-6 < norm < LARGEST:
        raise CaptureError(f"the pose of {image.name} is not finite: its quaternion is {image.quaternion}")
    if not all(abs(t) < LARGEST for t in image.translation):
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


def _intrinsics(model: int, size: tuple[int, int], params: tuple[float, ...], where: str) -> Intrinsics:
    name, count, lens, places = MODELS[model]
    if len(params) != count:
        raise CaptureError(f"{where}: {name} takes {count} parameters, not {len(params)}")
    focals = count - 2 - len(places)
    distortion = [0.0] * {"pinhole": 0, "opencv": 8, "fisheye": 4}[lens]
    for place, value in zip(places, params[focals + 2 :], strict=True):
        distortion[place] = value
    return Intrinsics(
        size=size,
        focal=(params[0], params[focals - 1]),
        centre=(params[focals], params[focals + 1]),
        lens=lens,
        distortion=tuple(distortion),
    )


def _supported(model: int, where: str) -> int:
    if model not in MODELS:
        name = OTHERS.get(model, f"number {model}")
        raise CaptureError(f"{where}: the camera model {name} is not supported; run COLMAP's image_undistorter first")
    return model


def _points(track: _Track, numbers: dict[int, int]) -> tuple[Points | None, int]:
    """(points that know their views by number, how many were left out). `numbers`: COLMAP image id -> view."""
    if len(track.xyz) == 0:
        return None, 0
    counts = np.diff(track.starts)
    ids = np.array(sorted(numbers), dtype=np.int64)
    views = np.array([numbers[i] for i in ids], dtype=np.int64)
    at = np.searchsorted(ids, track.images).clip(max=len(ids) - 1)
    known = np.equal(ids[at], track.images)
    good = np.all(np.abs(track.xyz) < LARGEST, axis=1)  # false for NaN as well
    point = np.repeat(np.arange(len(counts)), counts)
    keep = known & good[point]
    # A view may see a point in two of its pixels; it still is one view.
    pairs = np.unique(np.stack([point[keep], views[at[keep]]]), axis=1)
    offsets = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(np.bincount(pairs[0], minlength=len(counts)), out=offsets[1:])
    return (
        Points(
            xyz=torch.from_numpy(track.xyz[good].astype(np.float32)),
            rgb=torch.from_numpy(track.rgb[good]),
            view_offsets=torch.from_numpy(offsets[np.append(good, True)]),
            view_indices=torch.from_numpy(pairs[1].astype(np.int32)),
        ),
        int((~good).sum()),
    )


# ------------------------------------------------------------------------------------------------------------ files


def _image_count(model: Path) -> int:
    file = _required(model, "images")
    if file.suffix == ".txt":
        return len(_read_images_text(file))
    with _Bytes(file) as data:
        return data.count(73)


def _read_cameras(model: Path) -> dict[int, Intrinsics]:
    file = _required(model, "cameras")
    return _read_cameras_text(file) if file.suffix == ".txt" else _read_cameras_binary(file)


def _read_images(model: Path) -> list[_Image]:
    file = _required(model, "images")
    return _read_images_text(file) if file.suffix == ".txt" else _read_images_binary(file)


def _read_points(model: Path) -> _Track:
    file = _file(model, "points3D")
    if file is None:
        return _track([], [], [], [])
    return _read_points_text(file) if file.suffix == ".txt" else _read_points_binary(file)


def _track(xyz: list[list[float]], rgb: list[list[int]], lengths: list[int], images: list[int]) -> _Track:
    starts = np.concatenate([[0], np.cumsum(np.array(lengths, dtype=np.int64))]).astype(np.int64)
    return _Track(
        np.array(xyz, dtype=np.float64).reshape(-1, 3),
        np.array(rgb, dtype=np.uint8).reshape(-1, 3),
        starts,
        np.array(images, dtype=np.int64),
    )


@dataclass
class _Bytes:
    """A binary file, mapped, with a place in it. Reading past its end is a CaptureError that says where."""

    path: Path
    at: int = 0
    data: mmap.mmap | bytes = field(default=b"", repr=False)

    def __enter__(self) -> _Bytes:
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

    def take(self, layout: str) -> tuple[int | float, ...]:
        """The next values, little endian, in the letters of `struct`."""
        self.skip(struct.calcsize("<" + layout))
        return struct.unpack_from("<" + layout, self.data, self.at - struct.calcsize("<" + layout))

    def skip(self, size: int) -> None:
        if size > len(self.data) - self.at:
            raise CaptureError(
                f"{self.path} ends at byte {len(self.data)} but says there is more: it was cut off or damaged"
            )
        self.at += size

    def count(self, size: int) -> int:
        """A 64-bit count of records of at least `size` bytes each, checked against what is left of the file."""
        (count,) = self.take("Q")
        if count * size > len(self.data) - self.at:
            raise CaptureError(
                f"{self.path} says it holds {count} records, more than its {len(self.data)} bytes can hold"
            )
        return int(count)

    def name(self) -> str:
        """Text up to a NUL byte."""
        end = self.data.find(b"\0", self.at, self.at + 4096)
        if end < 0:
            raise CaptureError(f"{self.path} has an endless name at byte {self.at}: it is damaged")
        raw = self.data[self.at : end]
        self.at = end + 1
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise CaptureError(f"{self.path} has a name that is not UTF-8 at byte {self.at}") from error


def _read_cameras_binary(file: Path) -> dict[int, Intrinsics]:
    cameras = {}
    with _Bytes(file) as data:
        for _ in range(data.count(24)):
            number, model, width, height = (int(v) for v in data.take("IiQQ"))
            where = f"camera {number} in {file}"
            params = data.take(f"{MODELS[_supported(model, where)][1]}d")
            cameras[number] = _intrinsics(model, (width, height), params, where)
    return cameras


def _read_images_binary(file: Path) -> list[_Image]:
    images = []
    with _Bytes(file) as data:
        for _ in range(data.count(73)):
            number, w, x, y, z, tx, ty, tz, camera = data.take("I7dI")
            name = _checked_name(data.name(), file)
            data.skip(24 * data.count(24))  # x, y and the point's id of every keypoint; the points know their images
            images.append(_Image(int(number), name, int(camera), (w, x, y, z), (tx, ty, tz)))
    return images


def _read_points_binary(file: Path) -> _Track:
    """Records of 51 bytes (id, xyz, rgb, error, track length) and 8 per track element (image id, keypoint).

    Only the walk from record to record is a loop; the fields are then gathered for all points together.
    """
    with _Bytes(file) as data:
        count = data.count(51)
        heads = np.empty(count, dtype=np.int64)
        lengths = np.empty(count, dtype=np.int64)
        length_of = struct.Struct("<Q").unpack_from
        for i in range(count):
            heads[i] = data.at
            data.skip(51)
            (length,) = length_of(data.data, data.at - 8)
            data.skip(8 * length)
            lengths[i] = length
        raw = np.frombuffer(data.data[:], dtype=np.uint8)
    starts = np.zeros(count + 1, dtype=np.int64)
    np.cumsum(lengths, out=starts[1:])
    element = np.repeat(heads + 51, lengths) + 8 * (np.arange(starts[-1]) - np.repeat(starts[:-1], lengths))
    return _Track(
        _gather(raw, heads + 8, 24).view("<f8").astype(np.float64),
        _gather(raw, heads + 32, 3),
        starts,
        _gather(raw, element, 4).view("<u4").reshape(-1).astype(np.int64),
    )


def _gather(raw: NDArray[np.uint8], places: NDArray[np.int64], width: int) -> NDArray[np.uint8]:
    """(N, width) bytes that stand at `places` (N,), which need not be aligned."""
    rows = np.empty((len(places), width), dtype=np.uint8)
    for column in range(width):
        rows[:, column] = raw[places + column]
    return rows


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """(line number from 1, text), without comments; empty lines included, they mean something in images.txt."""
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


def _broken(file: Path, line: int, what: str) -> CaptureError:
    return CaptureError(f"{file}, line {line}: this is not {what}")


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
            raise _broken(file, line, "a camera: CAMERA_ID MODEL WIDTH HEIGHT PARAMS") from error
        if name not in IDS:
            raise CaptureError(f"{file}, line {line}: the camera model {name[:40]} is not supported")
        cameras[key] = _intrinsics(IDS[name], size, values, f"{file}, line {line}")
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
            raise _broken(file, line, "an image: IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME") from error
        next(lines, None)  # the line of keypoints, which may be empty
    return images


def _read_points_text(file: Path) -> _Track:
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
            seen = [int(p) for p in parts[8::2]]
        except ValueError as error:
            raise _broken(file, line, "a point: POINT3D_ID X Y Z R G B ERROR TRACK") from error
        if len(parts) < 8 or len(parts) % 2 or not all(0 <= c <= 255 for c in rgb[-1]):
            raise _broken(file, line, "a point: POINT3D_ID X Y Z R G B ERROR TRACK")
        lengths.append(len(seen))
        images += seen
    if any(not 0 <= i < 2**32 for i in images):
        raise CaptureError(f"{file} names an image id that is no 32-bit number")
    return _track(xyz, rgb, lengths, images)


def _checked_name(name: str, file: Path) -> str:
    if not name or "\0" in name:
        raise CaptureError(f"{file} holds an image without a name")
    return name
