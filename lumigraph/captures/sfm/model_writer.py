"""The final model on disk: in pixels of the original photos, with coloured points."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pycolmap
from numpy.typing import NDArray

from lumigraph.captures.sfm.features import Features
from lumigraph.captures.sfm.request import Request
from lumigraph.captures.thread_map import ordered_map
from lumigraph.scene.errors import CaptureError


def write_model(model: pycolmap.Reconstruction, request: Request, features: list[Features]) -> None:
    """Scale the model to the original pixels, colour its points, and write it in COLMAP's binary format."""
    colour_points(model, request, features)
    for image in model.images.values():
        photo = image.image_id - 1
        scale = np.array(request.sizes[photo]) / np.array(features[photo].size)
        for point in image.points2D:
            point.xy = point.xy * scale
    for number, camera in model.cameras.items():
        camera.rescale(*request.sizes[request.cameras.index(number - 1)])
    model.update_point_3d_errors()
    model.write_binary(request.model)


def colour_points(model: pycolmap.Reconstruction, request: Request, features: list[Features]) -> None:
    """Give each point the mean colour of its observations."""
    rows = {point: row for row, point in enumerate(model.points3D)}
    sums, counts = np.zeros((len(rows), 3)), np.zeros(len(rows))
    registered_images = [image for image in model.images.values() if image.has_pose]

    def sample(image: pycolmap.Image) -> tuple[list[int], NDArray[np.float64]]:
        photo = image.image_id - 1
        flags = cv2.IMREAD_REDUCED_COLOR_2 | cv2.IMREAD_IGNORE_ORIENTATION
        pixels = cv2.imread(str(Path(request.folder, image.name)), flags)
        if pixels is None:
            raise CaptureError(f"{image.name} cannot be decoded any more: the file changed during pose estimation")
        points = [point for point in image.points2D if point.has_point3D()]
        xy = np.array([point.xy for point in points]).reshape(-1, 2)
        limits = np.array(pixels.shape[1::-1])
        indices = np.clip((xy * limits / np.array(features[photo].size)).astype(int), 0, limits - 1)
        return [rows[point.point3D_id] for point in points], pixels[indices[:, 1], indices[:, 0], ::-1].astype(
            np.float64
        )

    for indices, colours in ordered_map(sample, registered_images):
        np.add.at(sums, indices, colours)
        np.add.at(counts, indices, 1)
    means = np.rint(sums / np.maximum(counts, 1)[:, None]).astype(np.uint8)
    for point, row in rows.items():
        model.points3D[point].color = means[row]
