"""Does a reconstruction agree with the pairs of photos that it was made from?"""

from __future__ import annotations

import numpy as np
import pycolmap
from numpy.typing import NDArray

from lumigraph.captures.sfm.features import Features
from lumigraph.captures.sfm.pose_report import PoseReport
from lumigraph.captures.sfm.request import Request
from lumigraph.captures.sfm.verification import Verified

CONSISTENT_PIXELS = 4.0  # from its epipolar lines, for a match that agrees
CONSISTENT_SHARE = 0.8  # of a pair's matches, for a pair that agrees
JUDGED_MATCHES = 100  # of a pair to be judged: pairs that match by mistake, as repeated texture does, match less
FEW_MATCHES, LEAST_JUDGED = 30, 5  # judged instead where fewer pairs have so many


def judge(
    model: pycolmap.Reconstruction,
    models: int,
    refined: bool,
    request: Request,
    found: list[Features],
    verified: list[Verified],
) -> PoseReport:
    """The figures that the gates of `report` look at. `models`: how many there were; this one is the largest."""
    registered = {image.name for image in model.images.values() if image.has_pose}
    matches, pairs = consistency(model, found, verified)
    scale = {
        number + 1: max(size) / max(found[photo].size)
        for photo, (number, size) in enumerate(zip(request.cameras, request.sizes, strict=True))
    }
    return PoseReport(
        photos=len(request.names),
        registered=len(registered),
        not_registered=[name for name in request.names if name not in registered],
        models=models,
        points=model.num_points3D(),
        reprojection_px=round(model.compute_mean_reprojection_error(), 4),
        observations_per_view=round(model.compute_mean_observations_per_reg_image(), 1),
        track_length=round(model.compute_mean_track_length(), 3),
        matches_consistent=round(matches, 4),
        pairs_consistent=round(pairs, 4),
        focal_px=[round(camera.mean_focal_length() * scale[i], 2) for i, camera in sorted(model.cameras.items())],
        principal_point_refined=refined,
        max_image_size=request.max_image_size,
    )


def consistency(model: pycolmap.Reconstruction, found: list[Features], verified: list[Verified]) -> tuple[float, float]:
    """(share of verified matches near their epipolar lines, share of pairs with many matches in which most are)."""
    near, total = [], []
    images, rays = model.images, {}
    for photo, features in enumerate(found):
        if photo + 1 in images and images[photo + 1].has_pose:
            camera = model.cameras[images[photo + 1].camera_id]
            rays[photo] = np.asarray(camera.cam_from_img(features.points.astype(np.float64)))
    for one in verified:
        i, j = one.pair
        if i not in rays or j not in rays:
            continue
        essential = essential_matrix(images[i + 1].cam_from_world(), images[j + 1].cam_from_world())
        focals = [model.cameras[images[photo + 1].camera_id].mean_focal_length() for photo in one.pair]
        rows = one.matches
        error = sampson(essential, rays[i][rows[:, 0]], rays[j][rows[:, 1]]) * np.mean(focals)
        near.append(int((error <= CONSISTENT_PIXELS).sum()))
        total.append(len(rows))
    return shares(np.array(near, int), np.array(total, int))


def shares(near: NDArray[np.int64], total: NDArray[np.int64]) -> tuple[float, float]:
    """(share of matches that agree, share of pairs that do), of pairs with `total` matches, `near` of them agreeing."""
    judged = total >= JUDGED_MATCHES
    if judged.sum() < LEAST_JUDGED:
        judged = total >= FEW_MATCHES
    good = near[judged] >= CONSISTENT_SHARE * total[judged]
    return float(near.sum() / max(total.sum(), 1)), float(good.mean()) if judged.any() else 0.0


def essential_matrix(first: pycolmap.Rigid3d, second: pycolmap.Rigid3d) -> NDArray[np.float64]:
    """[t]x R of the motion from the first camera to the second, t a unit vector; poses are cam_from_world."""
    motion = second * first.inverse()
    x, y, z = motion.translation / max(float(np.linalg.norm(motion.translation)), 1e-12)
    return np.asarray(np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ motion.rotation.matrix())


def sampson(
    essential: NDArray[np.float64], first: NDArray[np.float64], second: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Distance of matches (M, 2), (M, 2) on the plane z = 1 from their epipolar lines, to first order (Hartley and
    Zisserman 11.4.3); infinite where a pixel has no ray."""
    a, b = np.insert(first, 2, 1, axis=1), np.insert(second, 2, 1, axis=1)
    lines, back = a @ essential.T, b @ essential
    slope = np.sqrt((lines[:, :2] ** 2).sum(axis=1) + (back[:, :2] ** 2).sum(axis=1))
    distance = np.abs((b * lines).sum(axis=1)) / np.maximum(slope, 1e-12)
    return np.asarray(np.nan_to_num(distance, nan=np.inf))
