"""Agreement of a reconstruction with the matches of the image pairs that it was built from."""

from __future__ import annotations

import numpy as np
import pycolmap
from numpy.typing import NDArray

from lumigraph.captures.sfm.features import Features
from lumigraph.captures.sfm.pose_report import PoseReport
from lumigraph.captures.sfm.request import Request
from lumigraph.captures.sfm.verification import VerifiedPair

CONSISTENT_PIXELS = 4.0  # largest epipolar error of a consistent match
CONSISTENT_SHARE = 0.8  # smallest share of consistent matches of a consistent pair
# Pairs with fewer matches are not counted: false pairs of repeated texture have few.
STRONG_PAIR_MATCHES = 100
WEAK_PAIR_MATCHES, MIN_STRONG_PAIRS = 30, 5  # the lower limit, used if there are too few strong pairs


def build_report(
    model: pycolmap.Reconstruction,
    models: int,
    is_principal_point_refined: bool,
    request: Request,
    features: list[Features],
    verified_pairs: list[VerifiedPair],
) -> PoseReport:
    """Build the metrics for the gates of `pose_report`. `models`: number of models; `model` is the largest one."""
    registered_names = {image.name for image in model.images.values() if image.has_pose}
    matches, pairs = measure_consistency(model, features, verified_pairs)
    scale = {
        number + 1: max(size) / max(features[photo].size)
        for photo, (number, size) in enumerate(zip(request.cameras, request.sizes, strict=True))
    }
    return PoseReport(
        photos=len(request.names),
        registered=len(registered_names),
        not_registered=[name for name in request.names if name not in registered_names],
        models=models,
        points=model.num_points3D(),
        reprojection_px=round(model.compute_mean_reprojection_error(), 4),
        observations_per_view=round(model.compute_mean_observations_per_reg_image(), 1),
        track_length=round(model.compute_mean_track_length(), 3),
        matches_consistent=round(matches, 4),
        pairs_consistent=round(pairs, 4),
        focal_px=[round(camera.mean_focal_length() * scale[i], 2) for i, camera in sorted(model.cameras.items())],
        principal_point_refined=is_principal_point_refined,
        max_image_size=request.max_image_size,
    )


def measure_consistency(
    model: pycolmap.Reconstruction, features: list[Features], verified_pairs: list[VerifiedPair]
) -> tuple[float, float]:
    """Return (share of consistent verified matches, share of consistent pairs among those with many matches)."""
    near, total = [], []
    images, rays = model.images, {}
    for photo, image_features in enumerate(features):
        if photo + 1 in images and images[photo + 1].has_pose:
            camera = model.cameras[images[photo + 1].camera_id]
            rays[photo] = np.asarray(camera.cam_from_img(image_features.points.astype(np.float64)))
    for verified_pair in verified_pairs:
        i, j = verified_pair.pair
        if i not in rays or j not in rays:
            continue
        essential = essential_matrix(images[i + 1].cam_from_world(), images[j + 1].cam_from_world())
        focals = [model.cameras[images[photo + 1].camera_id].mean_focal_length() for photo in verified_pair.pair]
        rows = verified_pair.matches
        error = sampson(essential, rays[i][rows[:, 0]], rays[j][rows[:, 1]]) * np.mean(focals)
        near.append(int((error <= CONSISTENT_PIXELS).sum()))
        total.append(len(rows))
    return consistency_shares(np.array(near, int), np.array(total, int))


def consistency_shares(near: NDArray[np.int64], total: NDArray[np.int64]) -> tuple[float, float]:
    """Shares of consistent matches and of consistent pairs; pair i has near[i] consistent matches of total[i]."""
    is_counted = total >= STRONG_PAIR_MATCHES
    if is_counted.sum() < MIN_STRONG_PAIRS:
        is_counted = total >= WEAK_PAIR_MATCHES
    is_consistent = near[is_counted] >= CONSISTENT_SHARE * total[is_counted]
    return float(near.sum() / max(total.sum(), 1)), float(is_consistent.mean()) if is_counted.any() else 0.0


def essential_matrix(first: pycolmap.Rigid3d, second: pycolmap.Rigid3d) -> NDArray[np.float64]:
    """[t]x R of the motion from the first to the second camera, t a unit vector; poses are cam_from_world."""
    motion = second * first.inverse()
    x, y, z = motion.translation / max(float(np.linalg.norm(motion.translation)), 1e-12)
    return np.asarray(np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ motion.rotation.matrix())


def sampson(
    essential: NDArray[np.float64], first: NDArray[np.float64], second: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Sampson distance of matches from their epipolar lines (Hartley and Zisserman 11.4.3).

    Args:
        essential: (3, 3).
        first: (M, 2) points of the first image on the plane z = 1.
        second: (M, 2) points of the second image on the plane z = 1.

    Returns (M,) distances on that plane, inf where a pixel has no ray.
    """
    a, b = np.insert(first, 2, 1, axis=1), np.insert(second, 2, 1, axis=1)
    lines, back = a @ essential.T, b @ essential
    slope = np.sqrt((lines[:, :2] ** 2).sum(axis=1) + (back[:, :2] ** 2).sum(axis=1))
    distance = np.abs((b * lines).sum(axis=1)) / np.maximum(slope, 1e-12)
    return np.asarray(np.nan_to_num(distance, nan=np.inf))
