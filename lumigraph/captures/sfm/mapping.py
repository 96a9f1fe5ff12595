"""Cameras and points from all verified pairs, by COLMAP's mappers.

The incremental mapper runs bundle adjustment hundreds of times, so it uses only the longest tracks (see `tracks`).
All matches return when the cameras are known: they are triangulated in one pass and adjusted together.
"""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap

from lumigraph.captures.sfm import bundle_adjustment
from lumigraph.captures.sfm.event_pipe import EventPipe
from lumigraph.captures.sfm.features import Features
from lumigraph.captures.sfm.focal_candidates import LensCandidate
from lumigraph.captures.sfm.request import Request
from lumigraph.captures.sfm.tracks import thin_matches
from lumigraph.captures.sfm.verification import VerifiedPair
from lumigraph.captures.thread_map import thread_count

LOCAL_TOLERANCE, GLOBAL_TOLERANCE, COMPLETE_TOLERANCE = 1e-3, 1e-4, 1e-4  # relative decrease of a cost at which to end
LOCAL_IMAGES = 4  # images in the local bundle adjustment of a new image
COMPLETE_ROUNDS = 2  # full bundle adjustments, each followed by outlier removal
COMPLETE_CHANGE = 5e-4  # share of changed observations below which the rounds end
LOSS_SCALE_PX = 1.0


def reconstruct(
    request: Request,
    features: list[Features],
    verified_pairs: list[VerifiedPair],
    lenses: list[LensCandidate],
    pipe: EventPipe,
) -> tuple[pycolmap.Reconstruction | None, int]:
    """Return (model with the most images, number of models). An incremental model has the points of long tracks."""
    pipe.progress("cameras", 0, len(request.names), "photos")
    if not verified_pairs:
        return None, 0
    with tempfile.TemporaryDirectory(dir=Path(request.model).parent, prefix="mapping-") as work:
        database = Path(work, "database.db")
        if request.mapper == "global":
            fill_database(database, request, features, verified_pairs, lenses)
            options = pycolmap.GlobalPipelineOptions()
            options.random_seed = options.mapper.random_seed = request.seed
            options.num_threads = options.mapper.num_threads = thread_count()
            if not all(lens.has_prior for lens in lenses):  # without a focal length it returns wrong poses silently
                pycolmap.calibrate_view_graph(database)
            models = pycolmap.global_mapping(database, request.folder, work, options)
        else:
            fill_database(database, request, features, thin_matches(features, verified_pairs), lenses)
            models = pycolmap.incremental_mapping(
                database,
                request.folder,
                work,
                incremental_options(request),
                initial_image_pair_callback=(counter := RegistrationProgress(request, pipe)).start,
                next_image_callback=counter.next,
            )
    best = max(models.values(), key=lambda m: (m.num_reg_images(), m.num_points3D()), default=None)
    return best, len(models)


def complete_model(
    model: pycolmap.Reconstruction,
    request: Request,
    features: list[Features],
    verified_pairs: list[VerifiedPair],
    lenses: list[LensCandidate],
) -> None:
    """Triangulate all matches, register further images, and run bundle adjustment on everything, in place.

    The loss is robust: on images with known cameras it reduced the rotation error from 0.025 to 0.014 degrees.
    """
    with tempfile.TemporaryDirectory(dir=Path(request.model).parent, prefix="mapping-") as work:
        database = Path(work, "database.db")
        fill_database(database, request, features, verified_pairs, lenses)
        with contextlib.closing(pycolmap.Database.open(database)) as store:
            mapper = pycolmap.IncrementalMapper(pycolmap.DatabaseCache.create(store, pycolmap.DatabaseCacheOptions()))
    options = incremental_options(request)
    adjustment = bundle_adjustment.adjustment_options(tolerance=COMPLETE_TOLERANCE)
    adjustment.ceres.loss_function_type = pycolmap.LossFunctionType.SOFT_L1
    adjustment.ceres.loss_function_scale = LOSS_SCALE_PX
    mapper.begin_reconstruction(model)
    for image in model.reg_image_ids():
        mapper.triangulate_image(options.triangulation, image)
    mapper.complete_and_merge_tracks(options.triangulation)
    mapper.filter_points(options.mapper)
    while new_images := [
        i for i in mapper.find_next_images(options.mapper, False) if mapper.register_next_image(options.mapper, i)
    ]:
        for image in new_images:
            mapper.triangulate_image(options.triangulation, image)
    mapper.iterative_global_refinement(
        COMPLETE_ROUNDS, COMPLETE_CHANGE, options.mapper, adjustment, options.triangulation
    )
    mapper.end_reconstruction(False)
    model.update_point_3d_errors()


@dataclass
class RegistrationProgress:
    """Progress over registered images. A second model starts from two images, but the progress never decreases."""

    request: Request
    pipe: EventPipe
    count: int = 0
    largest_count: int = 0

    def start(self) -> None:
        self.count = 1
        self.next()

    def next(self) -> None:
        self.count += 1
        self.largest_count = max(self.largest_count, self.count)
        self.pipe.progress("cameras", self.largest_count, len(self.request.names), "photos")


def incremental_options(request: Request) -> pycolmap.IncrementalPipelineOptions:
    """COLMAP's options, less thorough, because `complete_model` adjusts everything once more.

    Global adjustments run at 1.3 times the size instead of 1.1, with two rounds of outlier removal instead of five.
    Local adjustments have one round instead of two and four images instead of six. Both end at the tolerances above.
    Together this halves the run time, with the same cameras.
    """
    options = pycolmap.IncrementalPipelineOptions()
    options.random_seed = options.mapper.random_seed = options.triangulation.random_seed = request.seed
    options.num_threads = options.mapper.num_threads = thread_count()
    options.extract_colors = False  # done by `model_writer`
    options.min_model_size = min(10, max(2, len(request.names) // 3))
    options.max_num_models = 10
    options.ba_min_num_residuals_for_cpu_multi_threading = bundle_adjustment.MIN_PARALLEL_RESIDUALS
    options.ba_local_max_refinements = 1
    options.mapper.ba_local_num_images = LOCAL_IMAGES
    options.ba_local_function_tolerance = LOCAL_TOLERANCE
    options.ba_global_frames_ratio = options.ba_global_points_ratio = 1.3
    options.ba_global_max_refinements = 2
    options.ba_global_function_tolerance = GLOBAL_TOLERANCE
    return options


def fill_database(
    database: Path,
    request: Request,
    features: list[Features],
    verified_pairs: list[VerifiedPair],
    lenses: list[LensCandidate],
) -> None:
    """Write the database that the mappers read. Ids are indices + 1; every image is a frame of its camera's rig."""
    store = pycolmap.Database.open(database)
    with contextlib.closing(store), pycolmap.DatabaseTransaction(store):
        for number, lens in enumerate(lenses):
            camera = lens.camera(number)
            store.write_camera(camera, True)
            rig = pycolmap.Rig(rig_id=number + 1)
            rig.add_ref_sensor(camera.sensor_id)
            store.write_rig(rig, True)
        for photo, (name, number) in enumerate(zip(request.names, request.cameras, strict=True)):
            image = pycolmap.Image(name=name, camera_id=number + 1, image_id=photo + 1)
            image.frame_id = photo + 1
            frame = pycolmap.Frame(frame_id=photo + 1, rig_id=number + 1)
            frame.add_data_id(image.data_id)
            store.write_frame(frame, True)
            store.write_image(image, True)
            store.write_keypoints(photo + 1, np.ascontiguousarray(features[photo].points))
        for verified_pair in verified_pairs:
            first, second = verified_pair.pair
            store.write_matches(first + 1, second + 1, verified_pair.matches)
            store.write_two_view_geometry(first + 1, second + 1, verified_pair.geometry)
