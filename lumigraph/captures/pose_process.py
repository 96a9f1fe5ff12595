"""The process that finds cameras: features, matches, two-view geometry, reconstruction. `pose` starts it.

    python -m lumigraph.captures.pose_process REQUEST.json

Standard output carries one JSON object a line: events, and last the report or the reason of failure. Everything runs in
pixels of the reduced photos, so that thresholds mean the same for every camera; the finished model is scaled up.
The method is incremental structure from motion (Schoenberger and Frahm 2016) by COLMAP, around our own features,
matching and focal length. This is the only module that imports pycolmap.
"""

import zlib  # isort: skip  # first: pycolmap brings its own and aborts the process when the system's is loaded later

import contextlib
import copy
import json
import os
import resource
import sys
import tempfile
import threading
import time
import traceback
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pycolmap
from numpy.typing import NDArray

from lumigraph.captures import features as local
from lumigraph.captures import focal
from lumigraph.captures.features import Features, Matches
from lumigraph.captures.pairs import Pair
from lumigraph.captures.parallel import in_order, threads
from lumigraph.captures.posing import PoseReport, Request, stops
from lumigraph.scene.errors import CaptureError
from lumigraph.wire.events import Note, Progress, to_line

assert zlib

LENS = "OPENCV"
DEFAULT_FOCAL = 1.2  # of the longer side: COLMAP's guess, where nothing tells better
SCREEN_FEATURES, SCREEN_MATCHES = 500, 6  # a pair is worth a full match when so many of the largest features match
FEW_FEATURES = 50  # a photo with fewer will hardly be joined
LEAST_MATCHES = 15  # of a pair, before and after verification
VOTING_PAIRS, VOTING_MATCHES, VOTING_ERROR = 200, 50, 2.0
CONSISTENT_PIXELS, CONSISTENT_SHARE, JUDGED_MATCHES = 4.0, 0.8, 50
STILL_PIXELS = 1.0  # photos in which nothing moved by more are copies of one another
CENTRE_PHOTOS, CENTRE_SHIFT = 10, 0.05  # to refine a principal point; how far from the middle, of the longer side
TALK_SECONDS = 0.1  # between two progress lines


class Speaker:
    """The pipe to the parent. Everything that libraries print goes elsewhere."""

    def __init__(self) -> None:
        self._pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self._stage, self._spoke = "", 0.0

    def line(self, content: dict[str, Any]) -> None:
        self._write(json.dumps(content))

    def note(self, text: str) -> None:
        self._write(to_line(Note(text=text, level="warning")))

    def progress(self, stage: str, done: int, total: int, unit: str) -> None:
        """Says how far a stage is, but not more often than anybody can read; its start and its end always."""
        now = time.monotonic()
        if stage != self._stage or done >= total or now - self._spoke >= TALK_SECONDS:
            self._stage, self._spoke = stage, now
            self._write(to_line(Progress(stage=stage, done=done, total=total, unit=unit)))

    def _write(self, line: str) -> None:
        self._pipe.write(line + "\n")
        self._pipe.flush()


@dataclass
class Stopwatch:
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.seconds[name] += time.monotonic() - start


@dataclass(frozen=True)
class Lens:
    """A guess at a camera before reconstruction, in pixels of the reduced photos."""

    size: tuple[int, int]
    focal: float
    trusted: bool  # known from EXIF or by vote; else only a start

    def camera(self, number: int) -> pycolmap.Camera:
        camera = pycolmap.Camera.create_from_model_name(number + 1, LENS, self.focal, *self.size)
        camera.has_prior_focal_length = self.trusted
        return camera


@dataclass(frozen=True)
class Verified:
    """The matches of a pair of photos that one motion of the camera explains."""

    pair: Pair
    geometry: pycolmap.TwoViewGeometry

    @property
    def matches(self) -> Matches:
        return np.asarray(self.geometry.inlier_matches, np.uint32)


@dataclass(frozen=True)
class Attempt:
    """One reconstruction and its judgement."""

    model: pycolmap.Reconstruction
    report: PoseReport

    @property
    def rank(self) -> tuple[bool, float]:
        return not stops(self.report), self.report.share * self.report.matches_consistent


def run(request: Request, say: Speaker) -> PoseReport:
    """All of it; writes the model and returns the report. Raises CaptureError where no model comes out at all."""
    clock = Stopwatch()
    pycolmap.set_random_seed(request.seed)
    with clock.stage("features"):
        found = extract(request, say)
    with clock.stage("matching"):
        matches = match(found, request.pairs, say)
    best: Attempt | None = None
    attempts = 0
    for lenses in guesses(request, found, matches, clock):
        attempts += 1
        with clock.stage("verification"):
            verified = trustworthy(verify(found, matches, lenses, request, say), lenses)
            refuse_stills(found, verified)
        with clock.stage("cameras"):
            model, models = reconstruct(request, found, verified, lenses, say)
        if model is None:
            continue
        with clock.stage("refinement"):
            model, refined = refine(model)
        judged = Attempt(model, judge(model, models, refined, request, found, verified))
        best = judged if best is None or judged.rank > best.rank else best
        if not stops(best.report):
            break
    if best is None:
        raise CaptureError(
            f"no two of these {len(found)} photos could be joined: they do not overlap, show moving or plain things, "
            "or were taken from one spot; take sharp photos that overlap by two thirds and step aside between them"
        )
    with clock.stage("writing"):
        write(best.model, request, found)
    seconds = {name: round(value, 2) for name, value in clock.seconds.items()}
    use = resource.getrusage(resource.RUSAGE_SELF)
    cpu = round(use.ru_utime + use.ru_stime, 2)
    return PoseReport(**{**asdict(best.report), "attempts": attempts, "seconds": seconds, "cpu_seconds": cpu})


# -- features and matches ----------------------------------------------------------------------------------------------


def extract(request: Request, say: Speaker) -> list[Features]:
    folder, photos = Path(request.folder), list(zip(request.names, request.sizes, strict=True))
    found: list[Features] = []
    say.progress("features", 0, len(photos), "photos")
    for result in in_order(
        lambda photo: local.extract(folder / photo[0], photo[1], request.max_image_size, request.max_features), photos
    ):
        found.append(result)
        say.progress("features", len(found), len(photos), "photos")
    plain = [name for name, one in zip(request.names, found, strict=True) if len(one) < FEW_FEATURES]
    if len(found) - len(plain) < 2:
        raise CaptureError(
            f"{len(plain)} of {len(found)} photos show next to no detail: they are blurred, dark or of something "
            "plain; take sharp photos of something textured"
        )
    if plain:
        say.note(f"{len(plain)} photos show hardly any detail and may not be joined, the first: {plain[0]}")
    return found


def match(found: list[Features], pairs: list[Pair], say: Speaker) -> dict[Pair, Matches]:
    """Matches of the pairs that have enough of them. Most pairs of a large set see different things: the largest few
    hundred features, matched first, tell so at a hundredth of the price (preemptive matching, Wu 2013)."""
    promising = []
    say.progress("pairs", 0, len(pairs), "pairs")
    few = in_order(lambda pair: len(local.match(found[pair[0]], found[pair[1]], SCREEN_FEATURES)), pairs)
    for done, (pair, count) in enumerate(zip(pairs, few, strict=True), start=1):
        if count >= SCREEN_MATCHES:
            promising.append(pair)
        say.progress("pairs", done, len(pairs), "pairs")
    matches: dict[Pair, Matches] = {}
    all_features = in_order(lambda pair: local.match(found[pair[0]], found[pair[1]]), promising)
    for done, (pair, rows) in enumerate(zip(promising, all_features, strict=True), start=1):
        if len(rows) >= LEAST_MATCHES:
            matches[pair] = rows
        say.progress("matches", done, len(promising), "pairs")
    return matches


# -- focal length and two-view geometry --------------------------------------------------------------------------------


def guesses(
    request: Request, found: list[Features], matches: dict[Pair, Matches], clock: Stopwatch
) -> Iterator[list[Lens]]:
    """Lenses to try, the likeliest first: what EXIF says, what the pairs vote for, COLMAP's default."""
    photo_of = {number: photo for photo, number in reversed(list(enumerate(request.cameras)))}
    sizes = [found[photo_of[number]].size for number in sorted(photo_of)]
    told = [request.focals[photo_of[number]] for number in sorted(photo_of)]
    reduced = [max(size) / max(request.sizes[photo_of[n]]) for n, size in enumerate(sizes)]
    if all(told):
        yield [Lens(size, value * k, True) for size, value, k in zip(sizes, told, reduced, strict=True) if value]
    with clock.stage("focal length"):
        voted = vote(request, found, matches)
    if voted is not None:
        yield [
            Lens(size, value * k if value and not all(told) else voted * max(size), True)
            for size, value, k in zip(sizes, told, reduced, strict=True)
        ]
    yield [Lens(size, DEFAULT_FOCAL * max(size), False) for size in sizes]


def vote(request: Request, found: list[Features], matches: dict[Pair, Matches]) -> float | None:
    """The focal length over the longer side that pairs of photos of one size agree on (see `focal`)."""
    usable = [
        pair
        for pair, rows in matches.items()
        if len(rows) >= VOTING_MATCHES and found[pair[0]].size == found[pair[1]].size
    ]
    chosen = np.random.default_rng(request.seed).permutation(len(usable))[:VOTING_PAIRS]
    options = two_view_options(request.seed, VOTING_ERROR)

    def estimate(pair: Pair) -> pycolmap.TwoViewGeometry:
        camera = Lens(found[pair[0]].size, DEFAULT_FOCAL * max(found[pair[0]].size), False).camera(0)
        return two_view(found, pair, matches[pair], camera, camera, options)

    asked = [usable[i] for i in sorted(chosen)]
    said = list(zip(asked, in_order(estimate, asked), strict=True))
    voters = [
        (pair, geometry)
        for pair, geometry in said
        if kind(geometry) == Kind.UNCALIBRATED and len(geometry.inlier_matches) >= VOTING_MATCHES
    ]
    return focal.vote(
        [np.asarray(geometry.F) for _, geometry in voters],
        [len(geometry.inlier_matches) for _, geometry in voters],
        [found[pair[0]].size for pair, _ in voters],
    )


Kind = pycolmap.TwoViewGeometryConfiguration


def kind(geometry: pycolmap.TwoViewGeometry) -> Any:
    return Kind(int(geometry.config))


def two_view_options(seed: int, max_error: float | None = None) -> pycolmap.TwoViewGeometryOptions:
    options = pycolmap.TwoViewGeometryOptions()
    options.ransac.random_seed = seed  # per pair, so that the order in which threads come does not matter
    if max_error is not None:
        options.ransac.max_error = max_error
    return options


def two_view(
    found: list[Features],
    pair: Pair,
    rows: Matches,
    first: pycolmap.Camera,
    second: pycolmap.Camera,
    options: pycolmap.TwoViewGeometryOptions,
) -> pycolmap.TwoViewGeometry:
    a, b = (found[photo].points.astype(np.float64) for photo in pair)
    return pycolmap.estimate_two_view_geometry(first, a, second, b, rows, options)


def verify(
    found: list[Features], matches: dict[Pair, Matches], lenses: list[Lens], request: Request, say: Speaker
) -> list[Verified]:
    """The pairs whose matches a motion of the camera explains, with the matches that it explains."""
    options = two_view_options(request.seed)
    cameras = [lens.camera(number) for number, lens in enumerate(lenses)]

    def estimate(pair: Pair) -> pycolmap.TwoViewGeometry:
        first, second = (cameras[request.cameras[photo]] for photo in pair)
        return two_view(found, pair, matches[pair], first, second, options)

    verified = []
    for done, (pair, geometry) in enumerate(zip(matches, in_order(estimate, matches), strict=True), start=1):
        if len(geometry.inlier_matches) >= LEAST_MATCHES:
            verified.append(Verified(pair, geometry))
        say.progress("verification", done, len(matches), "pairs")
    return verified


def trustworthy(verified: list[Verified], lenses: list[Lens]) -> list[Verified]:
    """Where focal lengths are known, without the pairs that a fundamental matrix explains clearly better than an
    essential one: such matches agree, but not on a motion of these cameras. Repeated texture does that; in a capture of
    a room with known cameras, nine in ten of the pairs that contradict them were found so. All pairs where fewer photos
    would hang together without them, as with a strongly distorting lens."""
    if not all(lens.trusted for lens in lenses):
        return verified
    kept = [one for one in verified if kind(one.geometry) != Kind.UNCALIBRATED]
    return kept if len(together(kept)) >= len(together(verified)) else verified


def together(verified: Sequence[Verified]) -> set[int]:
    """The largest set of photos that pairs connect."""
    group: dict[int, set[int]] = {}
    for i, j in (one.pair for one in verified):
        merged = group.get(i, {i}) | group.get(j, {j})
        group.update(dict.fromkeys(merged, merged))
    return max(group.values(), key=len, default=set())


def refuse_stills(found: list[Features], verified: list[Verified]) -> None:
    """Raises CaptureError where photos show the same and nothing moved between them."""
    moved = [
        float(np.median(np.linalg.norm(found[i].points[rows[:, 0]] - found[j].points[rows[:, 1]], axis=1)))
        for (i, j), rows in ((one.pair, one.matches) for one in verified)
    ]
    if moved and max(moved) < STILL_PIXELS:
        raise CaptureError(
            f"nothing moves between these {len(found)} photos: they are copies of one picture, or were taken from a "
            "tripod; depth shows only from different places"
        )


# -- reconstruction ----------------------------------------------------------------------------------------------------


def reconstruct(
    request: Request, found: list[Features], verified: list[Verified], lenses: list[Lens], say: Speaker
) -> tuple[pycolmap.Reconstruction | None, int]:
    """(the model with most photos, the number of models)."""
    say.progress("cameras", 0, len(request.names), "photos")
    if not verified:
        return None, 0
    with tempfile.TemporaryDirectory(dir=Path(request.model).parent, prefix="mapping-") as work:
        database = Path(work, "database.db")
        fill(database, request, found, verified, lenses)
        if request.mapper == "global":
            options = pycolmap.GlobalPipelineOptions()
            options.random_seed = options.mapper.random_seed = request.seed
            options.num_threads = options.mapper.num_threads = threads()
            if not all(lens.trusted for lens in lenses):  # without a focal length it returns wrong poses, unwarned
                pycolmap.calibrate_view_graph(database)
            models = pycolmap.global_mapping(database, request.folder, work, options)
        else:
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
    """COLMAP's, with global adjustments at 1.3 times the size instead of 1.1 and two rounds of outlier removal in each
    instead of five: a third less time for the same cameras, since the last adjustment repeats until it settles."""
    options = pycolmap.IncrementalPipelineOptions()
    options.random_seed = options.mapper.random_seed = options.triangulation.random_seed = request.seed
    options.num_threads = options.mapper.num_threads = threads()
    options.extract_colors = False  # see `colour`
    options.min_model_size = min(10, max(2, len(request.names) // 3))
    options.max_num_models = 10
    options.ba_global_frames_ratio = options.ba_global_points_ratio = 1.3
    options.ba_global_max_refinements = 2
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


# -- judgement ---------------------------------------------------------------------------------------------------------


def judge(
    model: pycolmap.Reconstruction,
    models: int,
    refined: bool,
    request: Request,
    found: list[Features],
    verified: list[Verified],
) -> PoseReport:
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
    """(share of verified matches near their epipolar lines, share of pairs with 50 matches in which most are)."""
    agreeing, total, good, judged = 0, 0, 0, 0
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
        near = int((error <= CONSISTENT_PIXELS).sum())
        agreeing, total = agreeing + near, total + len(rows)
        if len(rows) >= JUDGED_MATCHES:
            good, judged = good + (near >= CONSISTENT_SHARE * len(rows)), judged + 1
    return agreeing / max(total, 1), good / judged if judged else 0.0


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


# -- writing -----------------------------------------------------------------------------------------------------------


def write(model: pycolmap.Reconstruction, request: Request, found: list[Features]) -> None:
    """Scales the model up to the photos' own pixels, colours its points, and writes it in COLMAP's binary form."""
    colour(model, request, found)
    for image in model.images.values():
        photo = image.image_id - 1
        scale = np.array(request.sizes[photo]) / np.array(found[photo].size)
        for point in image.points2D:
            point.xy = point.xy * scale
    for number, camera in model.cameras.items():
        camera.rescale(*request.sizes[request.cameras.index(number - 1)])
    model.update_point_3d_errors()
    model.write_binary(request.model)


def colour(model: pycolmap.Reconstruction, request: Request, found: list[Features]) -> None:
    """Each point gets the mean colour of its pixels."""
    rows = {point: row for row, point in enumerate(model.points3D)}
    sums, counts = np.zeros((len(rows), 3)), np.zeros(len(rows))
    seen = [image for image in model.images.values() if image.has_pose]

    def sample(image: pycolmap.Image) -> tuple[list[int], NDArray[np.float64]]:
        photo = image.image_id - 1
        flags = cv2.IMREAD_REDUCED_COLOR_2 | cv2.IMREAD_IGNORE_ORIENTATION
        picture = cv2.imread(str(Path(request.folder, image.name)), flags)
        if picture is None:
            raise CaptureError(f"{image.name} cannot be decoded any more: it was changed while it was read")
        points = [point for point in image.points2D if point.has_point3D()]
        xy = np.array([point.xy for point in points]).reshape(-1, 2)
        limits = np.array(picture.shape[1::-1])
        at = np.clip((xy * limits / np.array(found[photo].size)).astype(int), 0, limits - 1)
        return [rows[point.point3D_id] for point in points], picture[at[:, 1], at[:, 0], ::-1].astype(np.float64)

    for at, colours in in_order(sample, seen):
        np.add.at(sums, at, colours)
        np.add.at(counts, at, 1)
    means = np.rint(sums / np.maximum(counts, 1)[:, None]).astype(np.uint8)
    for point, row in rows.items():
        model.points3D[point].color = means[row]


# -- the process -------------------------------------------------------------------------------------------------------


def end_with_parent() -> None:
    """Standard input ends when the parent does, however it ended: then nobody wants the result."""

    def wait() -> None:
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def main(arguments: Sequence[str]) -> int:
    say = Speaker()
    end_with_parent()
    cv2.setNumThreads(1)  # photos run in parallel already
    asked = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    asked["sizes"], asked["pairs"] = ([tuple(two) for two in asked[key]] for key in ("sizes", "pairs"))
    try:
        report = run(Request(**asked), say)
    except CaptureError as error:
        say.line({"kind": "failed", "text": str(error)})
    except Exception as error:
        traceback.print_exc()
        words = str(error).partition("\n")[0]
        print(f"{type(error).__name__}: {words}", file=sys.stderr)  # the log's last line, which the parent shows
        return 1
    else:
        say.line({"kind": "report", "report": asdict(report)})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
