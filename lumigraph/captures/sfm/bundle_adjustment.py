"""The last adjustment of a reconstruction, and whether it may move the principal points.

A principal point and the cameras' rotations make up for each other almost entirely: it is moved only where the photos
determine it. Their say is the covariance of an adjustment (Triggs et al. 2000, section 9) of the thinned model, where
a photo has a few hundred observations: the errors that matter, of the lens model and the shutter, are common to a
photo, and do not average out with thousands.
"""

from __future__ import annotations

import copy

import numpy as np
import pycolmap
from numpy.typing import NDArray

from lumigraph.captures.thread_map import threads

# In units of the photo's longer side; docs/decisions/0012 has the values of the captures that these come from.
MAX_STD = 0.001
MIN_SHIFT, MAX_SHIFT = 0.004, 0.05
FUNCTION_TOLERANCE = 1e-6
MIN_PARALLEL_RESIDUALS = 2000


def options(principal_point: bool = False, tolerance: float = FUNCTION_TOLERANCE) -> pycolmap.BundleAdjustmentOptions:
    """Of an adjustment of everything; `tolerance`: relative decrease of the cost at which it ends."""
    chosen = pycolmap.BundleAdjustmentOptions()
    chosen.refine_principal_point = principal_point
    chosen.print_summary = False
    chosen.ceres.solver_options.num_threads = threads()
    chosen.ceres.solver_options.function_tolerance = tolerance
    chosen.ceres.min_num_residuals_for_cpu_multi_threading = MIN_PARALLEL_RESIDUALS
    return chosen


def determines_principal_points(model: pycolmap.Reconstruction) -> bool:
    """Whether all principal points of the (thinned) model are known to MAX_STD, and clearly off the middle."""
    moved = copy.deepcopy(model)
    config = pycolmap.BundleAdjustmentConfig()
    for image in moved.reg_image_ids():
        config.add_image(image)
    config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    adjuster = pycolmap.create_default_ceres_bundle_adjuster(options(principal_point=True), config, moved)
    adjuster.solve()
    # Of all parameters: asked for those of poses alone, it leaves those of cameras uninitialised (pycolmap 4.2.1).
    covariance = pycolmap.estimate_ba_covariance(pycolmap.BACovarianceOptions(), moved, adjuster)
    if covariance is None:
        return False
    moved.update_point_3d_errors()
    pixels = moved.compute_mean_reprojection_error()
    return all(
        _is_determined(moved.cameras[number], covariance.get_other_params_cov(moved.cameras[number].params), pixels)
        for number in {moved.images[image].camera_id for image in moved.reg_image_ids()}
    )


def _is_determined(camera: pycolmap.Camera, covariance: NDArray[np.float64] | None, pixels: float) -> bool:
    """covariance: of the parameters for errors of one pixel; `pixels`: the actual ones."""
    if covariance is None or len(covariance) != len(camera.params):  # one was at its bound, or held fast
        return False
    side, rows = max(camera.width, camera.height), list(camera.principal_point_idxs())
    std = pixels * np.sqrt(np.diag(covariance)[rows])
    return is_clear(_shift(camera), float(std.max()) / side)


def is_clear(shift: float, std: float) -> bool:
    """Whether a principal point `shift` off the middle and known to `std` was moved for a reason."""
    return std <= MAX_STD and MIN_SHIFT <= shift <= MAX_SHIFT


def _shift(camera: pycolmap.Camera) -> float:
    """The larger of the two offsets of the principal point from the middle."""
    offsets = camera.principal_point_x - camera.width / 2, camera.principal_point_y - camera.height / 2
    return max(map(abs, offsets)) / max(camera.width, camera.height)


def move_principal_points(model: pycolmap.Reconstruction) -> tuple[pycolmap.Reconstruction, bool]:
    """(The model after an adjustment that also moves principal points, True), or (as it was, False) where they leave
    the middle. Least squares: a robust loss moved the cameras of fox from 0.095 to 0.11 degrees off the published ones.
    """
    moved = copy.deepcopy(model)
    pycolmap.bundle_adjustment(moved, options(principal_point=True))
    moved.update_point_3d_errors()
    near = all(_shift(camera) <= MAX_SHIFT for camera in moved.cameras.values())
    return (moved, True) if near else (model, False)
