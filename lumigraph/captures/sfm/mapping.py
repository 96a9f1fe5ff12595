"""Cameras and points from all pairs, by COLMAP's mappers.

The incremental mapper adjusts what it has hundreds of times, so it sees the longest tracks alone (see `tracks`). All
matches come back when the cameras are known: triangulated in one pass, then adjusted together.
"""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap

from lumigraph.captures.sfm import bundle_adjustment
from lumigraph.captures.sfm.event_pipe import Speaker
from lumigraph.captures.sfm.features import Features
from lumigraph.captures.sfm.focal_candidates import Lens
from lumigraph.captures.sfm.request import Request
from lumigraph.captures.sfm.tracks import thin
from lumigraph.captures.sfm.verification import Verified
from lumigraph.captures.thread_map import threads

LOCAL_TOLERANCE, GLOBAL_TOLERANCE, COMPLETE_TOLERANCE = 1e-3, 1e-4, 1e-4  # relative decrease of an adjustment's cost
LOCAL_PHOTOS = 4  # that are adjusted when one is added
COMPLETE_ROUNDS = 2  # adjustments of everything, each with a search for outliers
COMPLETE_CHANGE = 5e-4  # share of the observations: a round that changed fewer is the last
LOSS_PIXELS = 1.0


def reconstruct(
    request: Request, found: list[Features], verified: list[Verified], lenses: list[Lens], say: Speaker
) -> tuple[pycolmap.Reconstruction | None, int]:
    """(the model with most photos, the number of models). The incremental mapper's has the points of long tracks."""
    say.progress("cameras", 0, len(request.names), "photos")
    if not verified:
        return None, 0
    with tempfile.TemporaryDirectory(dir=Path(request.model).parent, prefix="mapping-") as work:
        database = Path(work, "database.db")
        if request.mapper == "global":
            fill(database, request, found, verified, lenses)
            options = pycolmap.GlobalPipelineOptions()
            options.random_seed = options.mapper.random_seed = request.seed
            options.num_threads = options.mapper.num_threads = threads()
            if not all(lens.trusted for lens in lenses):  # without a focal length it returns wrong poses, unwarned
                pycolmap.calibrate_view_graph(database)
            models = pycolmap.global_mapping(database, request.folder, work, options)
        else:
            fill(database, request, found, thin(found, verified), lenses)
            models = pycolmap.incremental_mapping(
                database,
                request.folder,
                work,
                incremental_options(request),
                initial_image_pair_callback=(counter := Registered(request, say)).start,
                next_image_callback=counter.next,
            )
    best = max(models.values(), key=lambda m: (m.num_reg_images(), m.num_points3D()), default=None)
    return best, len(models)


def complete(
    model: pycolmap.Reconstruction,
    request: Request,
    found: list[Features],
    verified: list[Verified],
    lenses: list[Lens],
) -> None:
    """Adds the points of all matches, photos that only they join, and adjusts everything, in place.

    The loss is robust: on photos whose cameras are known it brought rotations from 0.025 to 0.014 degrees.
    """
    with tempfile.TemporaryDirectory(dir=Path(request.model).parent, prefix="mapping-") as work:
        database = Path(work, "database.db")
        fill(database, request, found, verified, lenses)
        with contextlib.closing(pycolmap.Database.open(database)) as store:
            mapper = pycolmap.IncrementalMapper(pycolmap.DatabaseCache.create(store, pycolmap.DatabaseCacheOptions()))
    chosen = incremental_options(request)
    adjustment = bundle_adjustment.options(tolerance=COMPLETE_TOLERANCE)
    adjustment.ceres.loss_function_type = pycolmap.LossFunctionType.SOFT_L1
    adjustment.ceres.loss_function_scale = LOSS_PIXELS
    mapper.begin_reconstruction(model)
    for image in model.reg_image_ids():
        mapper.triangulate_image(chosen.triangulation, image)
    mapper.complete_and_merge_tracks(chosen.triangulation)
    mapper.filter_points(chosen.mapper)
    while new := [
        i for i in mapper.find_next_images(chosen.mapper, False) if mapper.register_next_image(chosen.mapper, i)
    ]:
        for image in new:
            mapper.triangulate_image(chosen.triangulation, image)
    mapper.iterative_global_refinement(
        COMPLETE_ROUNDS, COMPLETE_CHANGE, chosen.mapper, adjustment, chosen.triangulation
    )
    mapper.end_reconstruction(False)
    model.update_point_3d_errors()


@dataclass
class Registered:
    """Progress over registered photos; a second model starts from two again, the display does not go back."""

    request: Request
    say: Speaker
    now: int = 0
    most: int = 0

    def start(self) -> None:
        self.now = 1
        self.next()

    def next(self) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        self.say.progress("cameras", self.most, len(self.request.names), "photos")


def incremental_options(request: Request) -> pycolmap.IncrementalPipelineOptions:
    """COLMAP's, less thorough: everything is adjusted once more by `complete`.

    Global adjustments come at 1.3 times the size instead of 1.1, with two rounds of outlier removal instead of five;
    local ones have one round instead of two and four photos instead of six, and both end at the tolerances above
    instead of running on. Together they take half the time for the same cameras.
    """
    options = pycolmap.IncrementalPipelineOptions()
    options.random_seed = options.mapper.random_seed = options.triangulation.random_seed = request.seed
    options.num_threads = options.mapper.num_threads = threads()
    options.extract_colors = False  # see `writing`
    options.min_model_size = min(10, max(2, len(request.names) // 3))
    options.max_num_models = 10
    options.ba_min_num_residuals_for_cpu_multi_threading = bundle_adjustment.MIN_PARALLEL_RESIDUALS
    options.ba_local_max_refinements = 1
    options.mapper.ba_local_num_images = LOCAL_PHOTOS
    options.ba_local_function_tolerance = LOCAL_TOLERANCE
    options.ba_global_frames_ratio = options.ba_global_points_ratio = 1.3
    options.ba_global_max_refinements = 2
    options.ba_global_function_tolerance = GLOBAL_TOLERANCE
    return options


def fill(database: Path, request: Request, found: list[Features], verified: list[Verified], lenses: list[Lens]) -> None:
    """Writes what the mappers read. Ids are indices plus one; every photo is a frame of its camera's own rig."""
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
            store.write_keypoints(photo + 1, np.ascontiguousarray(found[photo].points))
        for one in verified:
            first, second = one.pair
            store.write_matches(first + 1, second + 1, one.matches)
            store.write_two_view_geometry(first + 1, second + 1, one.geometry)
