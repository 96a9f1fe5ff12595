"""A capture as a COLMAP model with its photos, for 3DGS, gsplat, nerfstudio and other trainers that read COLMAP.

    images/NAME    masks/NAME.png    sparse/0/cameras images points3D (.bin or .txt, little-endian)

COLMAP's axes and pixels are ours; its poses are cam_from_world. A capture knows which images see a point, but not the
keypoints. Each keypoint is therefore the projection of its point, and errors are -1, COLMAP's value for unknown. COLMAP
cannot store the held-out split.
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lumigraph.captures.readers.colmap import COLMAP_MODEL_IDS
from lumigraph.captures.writers.dataset_folder import (
    UNKNOWN_COLOUR_GREY,
    atomic_folder,
    colmap_model,
    distinct_intrinsics,
    photo_names,
    synced_file,
    write_photos,
)
from lumigraph.scene.assets import Points
from lumigraph.scene.cameras import Cameras, project
from lumigraph.scene.capture import Capture, hold_out_every_eighth
from lumigraph.scene.errors import CaptureError
from lumigraph.scene.poses import matrix_from_quaternion, quaternion_from_matrix
from lumigraph.wire.events import Event, Note

CAMERA_STRUCT, IMAGE_STRUCT, POINT_STRUCT = struct.Struct("<IiQQ"), struct.Struct("<I7dI"), struct.Struct("<Q3d3BdQ")
KEYPOINT_DTYPE = np.dtype([("x", "<f8"), ("y", "<f8"), ("point", "<i8")])
TRACK_DTYPE = np.dtype([("image", "<u4"), ("keypoint", "<u4")])
UNKNOWN_ERROR_PX = -1.0  # pixels


@dataclass(frozen=True)
class Model:
    """Records of the three files. Ids count from 1."""

    lens: str
    sizes: list[tuple[int, int]]  # of the cameras
    parameters: list[list[float]]  # of the cameras
    names: list[str]  # of the images
    poses: list[list[float]]  # w x y z, x y z: cam_from_world of the images
    camera_of: list[int]  # of the images, from 0
    keypoints: list[NDArray[np.void]]  # of the images, KEYPOINT_DTYPE
    xyz: NDArray[np.float64]  # (P, 3)
    rgb: NDArray[np.uint8]  # (P, 3)
    tracks: NDArray[np.void]  # TRACK_DTYPE; those of point p are tracks[starts[p] : starts[p + 1]]
    starts: NDArray[np.int64]  # (P + 1,)

    def points(self) -> Iterator[tuple[int, list[float], list[int], NDArray[np.void]]]:
        """Yield (id, position, colour, track) of each point."""
        rows = zip(self.xyz.tolist(), self.rgb.tolist(), self.starts[:-1], self.starts[1:], strict=True)
        for i, (xyz, rgb, start, end) in enumerate(rows, start=1):
            yield i, xyz, rgb, self.tracks[start:end]


def write(capture: Capture, out: Path, text: bool = False) -> Generator[Event, None, None]:
    """Write the folder `out`, which appears once it is complete. The model is binary unless `text`.

    Yields Progress over the photos, and Notes about data that COLMAP cannot store. Raises CaptureError if `out` is not
    empty, if a photo cannot be read, or if the disk cannot be written.
    """
    out, names = Path(out), photo_names(capture)
    if text and any(any(character.isspace() for character in name) for name in names):
        raise CaptureError("COLMAP's text form allows no blanks in the names of photos: choose the binary form")
    with atomic_folder(out) as folder:
        model = _model(capture, names)
        (_write_text if text else _write_binary)(model, folder / "sparse" / "0")
        yield from write_photos(capture, names, folder)
    if not torch.equal(capture.held_out, hold_out_every_eighth(capture.names)):
        yield Note(text="COLMAP cannot store which photos are held out; trainers will choose their own.")
    if not len(model.xyz):
        yield Note(text="This capture has no points; trainers that start from points need some.", level="warning")


def _model(capture: Capture, names: list[str]) -> Model:
    intrinsics, camera_of = distinct_intrinsics(capture.cameras)
    lens, coefficients = colmap_model(intrinsics)
    points = capture.points or Points(torch.zeros(0, 3))
    keypoints, tracks, starts = _observations(capture.cameras, points)
    pose = capture.cameras.world_from_cam.double()
    quaternions = quaternion_from_matrix(pose[:, :, :3].transpose(1, 2))
    translations = -(matrix_from_quaternion(quaternions) @ pose[:, :, 3:])[:, :, 0]
    rgb = torch.full((len(points), 3), UNKNOWN_COLOUR_GREY, dtype=torch.uint8) if points.rgb is None else points.rgb
    return Model(
        lens=lens,
        sizes=[intrinsics.size(i) for i in range(len(intrinsics))],
        parameters=torch.cat([intrinsics.focal.double(), intrinsics.centre.double(), coefficients], dim=1).tolist(),
        names=names,
        poses=torch.cat([quaternions, translations], dim=1).tolist(),
        camera_of=camera_of,
        keypoints=keypoints,
        xyz=points.xyz.double().numpy(),
        rgb=rgb.numpy(),
        tracks=tracks,
        starts=starts,
    )


def _observations(
    cameras: Cameras, points: Points
) -> tuple[list[NDArray[np.void]], NDArray[np.void], NDArray[np.int64]]:
    """(keypoints of each image, tracks of all points, start of each track), without points behind their camera."""
    if points.view_offsets is None or points.view_indices is None:
        return (
            [np.zeros(0, KEYPOINT_DTYPE)] * len(cameras),
            np.zeros(0, TRACK_DTYPE),
            np.zeros(len(points) + 1, np.int64),
        )
    images = points.view_indices.long().numpy()
    point_of_observation = np.repeat(np.arange(len(points)), points.view_offsets.diff().numpy())
    by_image = np.argsort(images, kind="stable")
    ends = np.cumsum(np.bincount(images, minlength=len(cameras)))
    keypoints, tracks = [], [np.zeros(0, TRACK_DTYPE)]
    for i, point_indices in enumerate(np.split(point_of_observation[by_image], ends[:-1])):
        pixels = project(cameras[i], points.xyz[torch.from_numpy(point_indices)])[0][0].double().numpy()
        is_finite = np.isfinite(pixels).all(axis=1)
        image_keypoints, track = (
            np.zeros(int(is_finite.sum()), KEYPOINT_DTYPE),
            np.zeros(int(is_finite.sum()), TRACK_DTYPE),
        )
        (image_keypoints["x"], image_keypoints["y"]), image_keypoints["point"] = (
            pixels[is_finite].T,
            point_indices[is_finite] + 1,
        )
        track["image"], track["keypoint"] = i + 1, np.arange(len(track))
        keypoints.append(image_keypoints)
        tracks.append(track)
    point_of_observation = np.concatenate(
        [np.zeros(0, np.int64), *(image_keypoints["point"] - 1 for image_keypoints in keypoints)]
    )
    starts = np.zeros(len(points) + 1, np.int64)
    np.cumsum(np.bincount(point_of_observation, minlength=len(points)), out=starts[1:])
    return keypoints, np.concatenate(tracks)[np.argsort(point_of_observation, kind="stable")], starts


# --- files -----------------------------------------------------------------------------------------------------------


def _write_binary(model: Model, folder: Path) -> None:
    with synced_file(folder / "cameras.bin") as stream:
        stream.write(struct.pack("<Q", len(model.sizes)))
        for i, (size, parameters) in enumerate(zip(model.sizes, model.parameters, strict=True), start=1):
            stream.write(
                CAMERA_STRUCT.pack(i, COLMAP_MODEL_IDS[model.lens], *size)
                + struct.pack(f"<{len(parameters)}d", *parameters)
            )
    with synced_file(folder / "images.bin") as stream:
        stream.write(struct.pack("<Q", len(model.names)))
        for i, name in enumerate(model.names):
            stream.write(IMAGE_STRUCT.pack(i + 1, *model.poses[i], model.camera_of[i] + 1) + name.encode() + b"\0")
            stream.write(struct.pack("<Q", len(model.keypoints[i])) + model.keypoints[i].tobytes())
    with synced_file(folder / "points3D.bin") as stream:
        stream.write(struct.pack("<Q", len(model.xyz)))
        for i, xyz, rgb, track in model.points():
            stream.write(POINT_STRUCT.pack(i, *xyz, *rgb, UNKNOWN_ERROR_PX, len(track)) + track.tobytes())


def _write_text(model: Model, folder: Path) -> None:
    with synced_file(folder / "cameras.txt") as stream:
        for i, (size, parameters) in enumerate(zip(model.sizes, model.parameters, strict=True), start=1):
            stream.write(_line(i, model.lens, *size, *parameters))
    with synced_file(folder / "images.txt") as stream:
        for i, name in enumerate(model.names):
            stream.write(_line(i + 1, *model.poses[i], model.camera_of[i] + 1, name))
            stream.write(_line(*(value for row in model.keypoints[i].tolist() for value in row)))
    with synced_file(folder / "points3D.txt") as stream:
        for i, xyz, rgb, track in model.points():
            stream.write(_line(i, *xyz, *rgb, UNKNOWN_ERROR_PX, *(value for row in track.tolist() for value in row)))


def _line(*values: object) -> bytes:
    """Format numbers as Python does, which is exact when read back."""
    return f"{' '.join(map(str, values))}\n".encode()
