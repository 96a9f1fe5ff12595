"""The final bundle adjustment of a model, with or without refinement of the principal points.

A principal point and the camera rotations are almost interchangeable. The principal point is refined only if the
images determine it, by the covariance of a bundle adjustment (Triggs et al. 2000, section 9). The covariance is
computed on the model of thinned matches, which has a few hundred observations per image. Errors of the lens model and
the shutter are shared by all observations of an image, so thousands of observations do not average them out.
"""

from __future__ import annotations

import copy

import numpy as np
import pycolmap
from numpy.typing import NDArray

from lumigraph.captures.thread_map import thread_count

# In units of the image's longer side; docs/decisions/0012 has the values of the captures behind these limits.
MAX_PRINCIPAL_POINT_STD = 0.001
MIN_PRINCIPAL_POINT_SHIFT, MAX_PRINCIPAL_POINT_SHIFT = 0.004, 0.05
FUNCTION_TOLERANCE = 1e-6
MIN_PARALLEL_RESIDUALS = 2000


def adjustment_options(
    principal_point: bool = False, tolerance: float = FUNCTION_TOLERANCE
) -> pycolmap.BundleAdjustmentOptions:
    """Options of a full bundle adjustment; `tolerance`: relative decrease of the cost at which it ends."""
    options = pycolmap.BundleAdjustmentOptions()
    options.refine_principal_point = principal_point
    options.print_summary = False
    options.ceres.solver_options.num_threads = thread_count()
    options.ceres.solver_options.function_tolerance = tolerance
    options.ceres.min_num_residuals_for_cpu_multi_threading = MIN_PARALLEL_RESIDUALS
    return options


def are_principal_points_determined(model: pycolmap.Reconstruction) -> bool:
    """Return True if all principal points are known to MAX_PRINCIPAL_POINT_STD and clearly off the image centre."""
    model_copy = copy.deepcopy(model)
    config = pycolmap.BundleAdjustmentConfig()
    for image in model_copy.reg_image_ids():
        config.add_image(image)
    config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    adjuster = pycolmap.create_default_ceres_bundle_adjuster(
        adjustment_options(principal_point=True), config, model_copy
    )
    adjuster.solve()
    # ALL parameters: with POSES alone, pycolmap 4.2.1 leaves the covariance of cameras uninitialised.
    covariance = pycolmap.estimate_ba_covariance(pycolmap.BACovarianceOptions(), model_copy, adjuster)
    if covariance is None:
        return False
    model_copy.update_point_3d_errors()
    error_px = model_copy.compute_mean_reprojection_error()
    return all(
        _is_determined(
            model_copy.cameras[number], covariance.get_other_params_cov(model_copy.cameras[number].params), error_px
        )
        for number in {model_copy.images[image].camera_id for image in model_copy.reg_image_ids()}
    )


def _is_determined(camera: pycolmap.Camera, covariance: NDArray[np.float64] | None, error_px: float) -> bool:
    """covariance: of the camera parameters, for errors of 1 px; `error_px`: the actual reprojection error."""
    if covariance is None or len(covariance) != len(camera.params):  # a parameter was at its bound, or constant
        return False
    side, rows = max(camera.width, camera.height), list(camera.principal_point_idxs())
    std = error_px * np.sqrt(np.diag(covariance)[rows])
    return is_significant_shift(_shift(camera), float(std.max()) / side)


def is_significant_shift(shift: float, std: float) -> bool:
    """Return True if an offset `shift`, known to the standard deviation `std`, justifies moving the principal point."""
    return std <= MAX_PRINCIPAL_POINT_STD and MIN_PRINCIPAL_POINT_SHIFT <= shift <= MAX_PRINCIPAL_POINT_SHIFT


def _shift(camera: pycolmap.Camera) -> float:
    """The larger of the two offsets of the principal point from the image centre."""
    offsets = camera.principal_point_x - camera.width / 2, camera.principal_point_y - camera.height / 2
    return max(map(abs, offsets)) / max(camera.width, camera.height)


def refine_principal_points(model: pycolmap.Reconstruction) -> tuple[pycolmap.Reconstruction, bool]:
    """Return (adjusted model, True), or (input model, False) if a principal point moves too far.

    The limit is MAX_PRINCIPAL_POINT_SHIFT. The loss is least squares: with a robust
    loss the rotation error of fox rose from 0.095 to 0.11 degrees.
    """
    model_copy = copy.deepcopy(model)
    pycolmap.bundle_adjustment(model_copy, adjustment_options(principal_point=True))
    model_copy.update_point_3d_errors()
    is_within_limit = all(_shift(camera) <= MAX_PRINCIPAL_POINT_SHIFT for camera in model_copy.cameras.values())
    return (model_copy, True) if is_within_limit else (model, False)
