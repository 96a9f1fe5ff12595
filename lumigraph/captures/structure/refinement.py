"""The last adjustment of a reconstruction, which also moves the principal points."""

from __future__ import annotations

import copy
from collections import defaultdict

import pycolmap

from lumigraph.captures.parallel import threads

CENTRE_PHOTOS, CENTRE_SHIFT = 10, 0.05  # to refine a principal point; how far from the middle, of the longer side


def refine(model: pycolmap.Reconstruction) -> tuple[pycolmap.Reconstruction, bool]:
    """A last adjustment that also moves the principal points, kept if they stay near the middle and it fits no worse.

    Not for few photos, whose rotations make up for a wrong principal point: it is then not determined.
    """
    model.update_point_3d_errors()
    photos: dict[int, int] = defaultdict(int)
    for image in model.images.values():
        photos[image.camera_id] += image.has_pose
    if min(filter(None, photos.values())) < CENTRE_PHOTOS:
        return model, False
    moved = copy.deepcopy(model)
    options = pycolmap.BundleAdjustmentOptions()
    options.refine_principal_point = True
    options.print_summary = False
    options.ceres.solver_options.num_threads = threads()
    pycolmap.bundle_adjustment(moved, options)
    moved.update_point_3d_errors()
    near = all(
        max(abs(camera.principal_point_x - camera.width / 2), abs(camera.principal_point_y - camera.height / 2))
        <= CENTRE_SHIFT * max(camera.width, camera.height)
        for camera in moved.cameras.values()
    )
    better = moved.compute_mean_reprojection_error() <= model.compute_mean_reprojection_error()
    return (moved, True) if near and better else (model, False)
