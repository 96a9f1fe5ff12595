"""Pose estimation: of a synthetic room with known cameras, of unusable photos, and with dying processes.

With LUMIGRAPH_SLOW=1 also of real captures, minutes each.
"""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from lumigraph.captures import pose, video
from lumigraph.captures.photos import PhotoSet, find_photos
from lumigraph.captures.readers import colmap, transforms
from lumigraph.captures.sfm import correspondences, focal_voting, image_pairs
from lumigraph.captures.sfm import features as sift
from lumigraph.captures.sfm.features import DESCRIPTOR_NORM
from lumigraph.captures.sfm.pose_report import PoseReport, find_failures, find_warnings
from lumigraph.scene.cameras import Cameras
from lumigraph.scene.errors import CaptureError
from lumigraph.scene.poses import align_similarity, look_at, rotation_error_degrees
from lumigraph.wire.events import Note, Progress
from tests.captures.common import DATA, finish

SIZE = (400, 300)
FOCAL = 380.0
slow = pytest.mark.skipif(not os.environ.get("LUMIGRAPH_SLOW"), reason="minutes long: set LUMIGRAPH_SLOW=1")

# -- a room with known cameras -----------------------------------------------------------------------------------------


def texture(seed: int) -> NDArray[np.uint8]:
    """(512, 512, 3) noise in four octaves: blobs of every size, without repetition."""
    random = np.random.default_rng(seed)
    layers = [
        cv2.resize(random.random((512 // k, 512 // k, 3)), (512, 512), interpolation=cv2.INTER_CUBIC) * weight
        for k, weight in ((4, 0.3), (8, 0.5), (16, 0.6), (64, 0.4))
    ]
    total = np.sum(layers, axis=0)
    return np.asarray(np.clip(255 * (total - total.min()) / np.ptp(total), 0, 255), np.uint8)


# Two walls and the floor of a room, and a box in it: corner and two edges, world y down.
PLANES = [
    ((-3.0, -3.0, 3.0), (6.0, 0.0, 0.0), (0.0, 4.0, 0.0)),
    ((-3.0, -3.0, 3.0), (0.0, 0.0, -6.0), (0.0, 4.0, 0.0)),
    ((-3.0, 1.0, 3.0), (6.0, 0.0, 0.0), (0.0, 0.0, -6.0)),
    ((-0.5, 0.0, 0.6), (1.2, 0.0, 0.4), (0.0, 1.0, 0.0)),
    ((-0.5, 0.0, 0.6), (-0.4, 0.0, 1.2), (0.0, 1.0, 0.0)),
    ((-0.5, 0.0, 0.6), (1.2, 0.0, 0.4), (-0.4, 0.0, 1.2)),
]


def render_room(world_from_cam: Tensor) -> NDArray[np.uint8]:
    """Render the room from a pose (3, 4): every pixel has the colour of the nearest plane that its ray hits."""
    width, height = 2 * SIZE[0], 2 * SIZE[1]  # supersampled, then averaged, as in a sensor
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    rays = np.stack([(x - width / 2) / (2 * FOCAL), (y - height / 2) / (2 * FOCAL), np.ones_like(x)], axis=-1)
    matrix = world_from_cam.numpy()
    rays, eye = rays @ matrix[:, :3].T, matrix[:, 3]
    image, nearest = np.zeros((height, width, 3), np.uint8), np.full((height, width), np.inf)
    for number, plane in enumerate(PLANES):
        corner, u, v = (np.array(values) for values in plane)
        basis = np.linalg.inv(np.stack([u, v, np.cross(u, v)], axis=1))
        start, step = basis @ (eye - corner), rays @ basis.T
        depth = -start[2] / np.where(step[..., 2] == 0, 1e-9, step[..., 2])
        s, t = (start[axis] + depth * step[..., axis] for axis in (0, 1))
        hit = (depth > 0) & (depth < nearest) & (s >= 0) & (s <= 1) & (t >= 0) & (t <= 1)
        texel = [(values * 511).astype(np.float32) for values in (s, t)]
        colours = cv2.remap(texture(number), texel[0], texel[1], cv2.INTER_LINEAR)
        image[hit], nearest[hit] = colours[hit], depth[hit]
    return np.asarray(cv2.resize(image, SIZE, interpolation=cv2.INTER_AREA))


def walk(count: int) -> Tensor:
    """(count, 3, 4) poses on an arc in front of the box, at varying heights."""
    angle = torch.linspace(-0.55, 0.55, count, dtype=torch.float64)
    eye = torch.stack([3.2 * torch.sin(angle), -0.8 + 0.35 * torch.sin(5 * angle), 1.2 - 3.4 * torch.cos(angle)], dim=1)
    target = torch.tensor([0.1, 0.1, 1.0], dtype=torch.float64)
    return look_at(eye, target.expand_as(eye), torch.tensor([0.0, -1.0, 0.0], dtype=torch.float64))


def write_photo_set(folder: Path, images: list[NDArray[np.uint8]], focals: float | None = None) -> PhotoSet:
    folder.mkdir(parents=True)
    names = tuple(f"{i:02d}.png" for i in range(len(images)))
    for name, image in zip(names, images, strict=True):
        assert cv2.imwrite(str(folder / name), image)
    size = (images[0].shape[1], images[0].shape[0])
    count = len(images)
    return PhotoSet(folder, names, (size,) * count, (focals,) * count, (None,) * count)


@pytest.fixture(scope="module")
def poses() -> Tensor:
    return walk(9)


@pytest.fixture(scope="module")
def room_photos(tmp_path_factory: pytest.TempPathFactory, poses: Tensor) -> PhotoSet:
    return write_photo_set(tmp_path_factory.mktemp("room") / "photos", [render_room(pose) for pose in poses])


def pose_errors(estimate: Cameras, truth: Tensor) -> tuple[float, float]:
    """(mean degrees, mean distance over the diagonal of the camera box) after similarity alignment."""
    estimated_poses, truth = estimate.world_from_cam.double(), truth.double()
    aligned_poses = align_similarity(estimated_poses[:, :, 3], truth[:, :, 3]).transform_poses(estimated_poses)
    diagonal = (truth[:, :, 3].amax(0) - truth[:, :, 3].amin(0)).norm()
    angles = rotation_error_degrees(aligned_poses[..., :3], truth[..., :3])
    return angles.mean().item(), ((aligned_poses[..., 3] - truth[..., 3]).norm(dim=1).mean() / diagonal).item()


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("mapper", ["incremental", "global"])
def test_estimate_recovers_cameras_of_a_room(room_photos: PhotoSet, poses: Tensor, tmp_path: Path, mapper: Any) -> None:
    out = tmp_path / "capture"
    report, events = finish(pose.estimate(room_photos, out, mapper=mapper))
    capture = colmap.read(out)

    assert report.registered == report.photos == len(capture) == 9
    assert report.not_registered == [] and find_failures(report) == []
    degrees, distance = pose_errors(capture.cameras, poses)
    assert degrees < 0.3 and distance < 0.005
    assert report.focal_px[0] == pytest.approx(FOCAL, rel=0.02)
    assert report.reprojection_px < 1 and report.matches_consistent > 0.95

    assert capture.names == room_photos.names and capture.cameras.size(0) == SIZE
    assert capture.points is not None and capture.points.rgb is not None
    assert float(capture.points.rgb.float().std()) > 10  # coloured, not black
    content = json.loads((out / "pose.json").read_text())
    assert (
        content["verdict"] in ("good", "doubtful") and content["registered"] == 9 and "matching" in content["seconds"]
    )
    assert names_in(out) == ["images", "pose.json", "sparse"] and names_in(tmp_path) == ["capture"]
    assert names_in(out / "sparse") == ["0"]
    stages = {event.stage for event in events if isinstance(event, Progress)}
    assert stages == {"features", "pairs", "matches", "verification", "cameras"}


def test_estimate_model_is_in_original_pixels(room_photos: PhotoSet, poses: Tensor, tmp_path: Path) -> None:
    """Photos downscaled to three quarters give the same model with less precision."""
    finish(pose.estimate(room_photos, tmp_path / "capture", max_image_size=300, camera="single"))
    capture = colmap.read(tmp_path / "capture")
    assert capture.cameras.size(0) == SIZE
    assert capture.cameras.focal[0, 0].item() == pytest.approx(FOCAL, rel=0.03)
    assert pose_errors(capture.cameras, poses)[0] < 0.5


def test_estimate_tolerates_wrong_exif_focal_length(room_photos: PhotoSet, poses: Tensor, tmp_path: Path) -> None:
    wrong = PhotoSet(
        room_photos.folder, room_photos.names, room_photos.sizes, (3 * FOCAL,) * len(room_photos), room_photos.gps
    )
    finish(pose.estimate(wrong, tmp_path / "capture"))
    assert pose_errors(colmap.read(tmp_path / "capture").cameras, poses)[0] < 0.5


def test_estimate_replaces_only_earlier_results(room_photos: PhotoSet, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "holiday").mkdir(parents=True)
    with pytest.raises(CaptureError, match="no earlier result"):
        finish(pose.estimate(room_photos, out))
    assert names_in(out) == ["holiday"]
    (out / "pose.json").write_text("{}")
    finish(pose.estimate(room_photos, out))
    assert names_in(out) == ["images", "pose.json", "sparse"] and names_in(tmp_path) == ["out"]


# -- photos that cannot be registered ----------------------------------------------------------------------------------


def assert_rejected(photos: PhotoSet, out: Path, match: str) -> None:
    with pytest.raises(CaptureError, match=match):
        finish(pose.estimate(photos, out))
    assert not out.exists() and not list(out.parent.glob("*.tmp-*"))


@pytest.mark.parametrize("count", [1, 2])
def test_estimate_rejects_fewer_than_three_photos(count: int, tmp_path: Path) -> None:
    photos = write_photo_set(tmp_path / "photos", [texture(i) for i in range(count)])
    assert_rejected(photos, tmp_path / "out", rf"from {count} photos?: at least three")


def test_estimate_rejects_plain_photos(tmp_path: Path) -> None:
    plain = [np.full((120, 160, 3), 40 * i, np.uint8) for i in range(4)]
    assert_rejected(write_photo_set(tmp_path / "photos", plain), tmp_path / "out", "next to no detail")


def test_estimate_rejects_copies_of_one_photo(tmp_path: Path) -> None:
    assert_rejected(write_photo_set(tmp_path / "photos", [texture(0)] * 4), tmp_path / "out", "nothing moves")


def test_estimate_rejects_unrelated_photos(tmp_path: Path) -> None:
    unrelated_photos = [texture(10 + i)[:240, :320] for i in range(4)]
    assert_rejected(
        write_photo_set(tmp_path / "photos", unrelated_photos), tmp_path / "out", "no two of these 4 photos"
    )


def test_estimate_keeps_partial_result_on_request(poses: Tensor, tmp_path: Path) -> None:
    """Five photos of the room among seven unrelated ones: rejected, or kept with a warning."""
    images = [render_room(pose) for pose in poses[2:7]] + [texture(20 + i)[: SIZE[1], : SIZE[0]] for i in range(7)]
    photos = write_photo_set(tmp_path / "photos", images)
    assert_rejected(photos, tmp_path / "out", "only 5 of 12 photos could be registered .not registered: 05.png")
    report, events = finish(pose.estimate(photos, tmp_path / "out", allow_partial=True))
    assert report.registered == 5 and report.not_registered == list(photos.names[5:])
    assert any(isinstance(event, Note) and "only 5 of 12" in event.text for event in events)
    assert json.loads((tmp_path / "out" / "pose.json").read_text())["verdict"] == "failed"


def test_estimate_names_missing_photo_and_wrong_size(room_photos: PhotoSet, tmp_path: Path) -> None:
    missing_photo = PhotoSet(
        tmp_path, ("gone.png", *room_photos.names[1:]), room_photos.sizes, room_photos.focal_px, room_photos.gps
    )
    assert_rejected(missing_photo, tmp_path / "out", "gone.png is gone")
    wrong_size = PhotoSet(
        room_photos.folder, room_photos.names, ((640, 480),) * len(room_photos), room_photos.focal_px, room_photos.gps
    )
    assert_rejected(wrong_size, tmp_path / "out", "00.png is 400x300, not 640x480")


# -- the process -------------------------------------------------------------------------------------------------------


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """The processes started after this fixture."""
    processes: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def start(*args: Any, **kwargs: Any) -> subprocess.Popen[bytes]:
        processes.append(popen(*args, **kwargs))
        return processes[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    return processes


def test_estimate_cancel_ends_process_and_leaves_no_files(
    room_photos: PhotoSet, tmp_path: Path, children: list[subprocess.Popen[bytes]]
) -> None:
    task = pose.estimate(room_photos, tmp_path / "out")
    next(task)
    assert children[0].poll() is None
    task.close()
    assert children[0].returncode == -signal.SIGKILL
    assert names_in(tmp_path) == []
    assert names_in(room_photos.folder) == list(room_photos.names)


def test_estimate_reports_killed_process(
    room_photos: PhotoSet, tmp_path: Path, children: list[subprocess.Popen[bytes]]
) -> None:
    task = pose.estimate(room_photos, tmp_path / "out")
    next(task)
    os.kill(children[0].pid, signal.SIGKILL)
    with pytest.raises(CaptureError, match="was killed, most likely because memory ran out"):
        finish(task)
    assert names_in(tmp_path) == []


def test_estimate_reports_crash_with_last_log_line(room_photos: PhotoSet, tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match=r"stopped with exit status 1 \(TypeError: set_random_seed"):
        finish(pose.estimate(room_photos, tmp_path / "out", seed="unexpected"))  # type: ignore[arg-type]
    assert names_in(tmp_path) == []


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks into /proc")
def test_process_ends_with_its_parent(room_photos: PhotoSet, tmp_path: Path) -> None:
    script = (
        "import sys, time, pickle\n"
        "from pathlib import Path\n"
        "from lumigraph.captures import pose\n"
        "popen = pose.subprocess.Popen\n"
        "def start(*args, **kwargs):\n"
        "    child = popen(*args, **kwargs)\n"
        "    print(child.pid, flush=True)\n"
        "    return child\n"
        "pose.subprocess.Popen = start\n"
        "task = pose.estimate(pickle.loads(bytes.fromhex(sys.argv[1])), Path(sys.argv[2]))\n"
        "next(task)\n"
        "print('working', flush=True)\n"
        "time.sleep(60)\n"
    )
    import pickle  # our own bytes, in our own script

    arguments = [pickle.dumps(room_photos).hex(), str(tmp_path / "out")]
    root = Path(__file__).resolve().parents[2]
    parent = subprocess.Popen([sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, cwd=root)
    assert parent.stdout is not None
    with parent.stdout:
        child = int(parent.stdout.readline())
        assert parent.stdout.readline() == b"working\n"
        assert alive(child)
        parent.kill()
        parent.wait()
    deadline = time.monotonic() + 20
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(child)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def test_process_imports_zlib_first() -> None:
    """pycolmap before zlib, then a PNG written: the interpreter aborts (free(): invalid pointer)."""
    source = Path(pose.__file__).parent / "sfm" / "process.py"
    imports = [node for node in ast.parse(source.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert isinstance(imports[0], ast.Import) and imports[0].names[0].name == "zlib"
    script = (
        "import lumigraph.captures.sfm.process\n"
        "import zlib, cv2, numpy\n"
        "zlib.decompress(zlib.compress(bytes(100000)))\n"
        "assert cv2.imencode('.png', numpy.zeros((64, 64, 3), numpy.uint8))[0]\n"
        "print('alive')"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=source.parents[3])
    assert result.returncode == 0 and result.stdout == "alive\n", result.stderr


def test_pycolmap_is_imported_only_by_sfm() -> None:
    """Only its package imports pycolmap, and the modules used from outside do not load it."""
    house = Path(pose.__file__).parents[1]
    uses = re.compile(r"^\s*(import|from) pycolmap", re.MULTILINE)
    importers = {path.parent for path in house.rglob("*.py") if uses.search(path.read_text())}
    assert importers == {house / "captures" / "sfm"}
    script = (
        "from lumigraph.captures import pose\n"
        "from lumigraph.captures.sfm import features, focal_voting\n"
        "import sys\n"
        "print('pycolmap' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=house.parent)
    assert result.stdout == "False\n", result.stderr


# -- parts -------------------------------------------------------------------------------------------------------------


def features_of(rows: NDArray[np.float64]) -> sift.Features:
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    whole = np.clip(np.rint(DESCRIPTOR_NORM * unit), 0, 127).astype(np.uint8)
    return sift.Features((100, 100), np.zeros((len(rows), 2), np.float32), whole)


def test_match_is_mutual_and_passes_ratio_test() -> None:
    random = np.random.default_rng(1)
    base = random.random((300, 128)) * 90
    order = random.permutation(300)
    noisy = base[order] + random.normal(size=base.shape) * 2
    rows = sift.match(features_of(base), features_of(noisy))
    assert len(rows) == 300
    assert (order[rows[:, 1]] == rows[:, 0]).all()
    twins = np.concatenate([noisy, noisy[:100] + 0.6])  # two equally good matches are none, in either direction
    for first, second, column in ((base, twins, 0), (twins, base, 1)):
        matches = sift.match(features_of(first), features_of(second))
        assert set(matches[:, column].tolist()).isdisjoint(order[:100].tolist()) and len(matches) == 200
    assert len(sift.match(features_of(base[:1]), features_of(noisy))) == 0
    assert len(sift.match(features_of(base), features_of(noisy), largest=50)) < 50


def test_extract_locates_features_exactly(tmp_path: Path) -> None:
    """A blob at a known point is detected there, also after downscaling."""
    x, y = np.meshgrid(np.arange(240) + 0.5, np.arange(160) + 0.5)
    blob = 255 * np.exp(-((x - 120) ** 2 + (y - 80) ** 2) / (2 * 12.0**2))
    cv2.imwrite(str(tmp_path / "blob.png"), blob.astype(np.uint8))
    for size in (240, 120):
        features = sift.extract(tmp_path / "blob.png", (240, 160), size, 10)
        assert features.size == (size, size * 2 // 3)
        assert features.points[0] == pytest.approx([size / 2, size / 3], abs=0.05)


def test_required_scores_equal_ratio_of_angles() -> None:
    """The table of smallest dot products is equivalent to Lowe's ratio of angles."""
    random = np.random.default_rng(3)
    min_scores = sift._required_scores()
    for score, following in random.integers(30000, 62501, (2000, 2)):
        angle, next_angle = (np.arccos(min(value / DESCRIPTOR_NORM**2, 1)) for value in (score, following))
        angle = max(angle, sift.SMALLEST_ANGLE)
        assert (score >= min_scores[following]) == (angle < sift.MAX_ANGLE and angle < sift.RATIO * next_angle)
    assert min_scores[0] > 0 and (min_scores[DESCRIPTOR_NORM**2 :] == 65536).all()


def test_extract_skips_masked_and_transparent_pixels(tmp_path: Path) -> None:
    """Left half masked, top half transparent: features remain only at the bottom right."""
    image = texture(5)[:300, :400]
    mask = np.full((300, 400), 255, np.uint8)
    mask[:, :200] = 0
    alpha = np.full((300, 400, 1), 255, np.uint8)
    alpha[:150] = 0
    cv2.imwrite(str(tmp_path / "plain.png"), image)
    cv2.imwrite(str(tmp_path / "cut.png"), np.concatenate([image, alpha], axis=2))
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    cv2.imwrite(str(tmp_path / "tall.png"), mask.T)
    everywhere = sift.extract(tmp_path / "plain.png", (400, 300), 400, 2000)
    assert everywhere.points.min() < 60
    points = sift.extract(tmp_path / "cut.png", (400, 300), 400, 2000, tmp_path / "mask.png").points
    assert len(points) > 20 and points[:, 0].min() >= 199 and points[:, 1].min() >= 149
    with pytest.raises(CaptureError, match=r"mask of plain.png"):
        sift.extract(tmp_path / "plain.png", (400, 300), 400, 2000, tmp_path / "tall.png")


@pytest.mark.parametrize("name", ["a.jpg.png", "a.png", "a.jpg"])
def test_find_photos_imports_masks(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "masks").mkdir(parents=True)
    (folder / "images").mkdir()
    for photo in ("a.jpg", "b.jpg"):
        cv2.imwrite(str(folder / "images" / photo), texture(1)[:60, :80])
    mask = np.zeros((60, 80, 3), np.uint8)
    mask[:, 40:] = 255
    cv2.imwrite(str(folder / "masks" / name), mask)
    photos, _ = finish(find_photos(folder / "images", tmp_path / "work"))
    assert photos.masks[1] is None and photos.masks[0] is not None
    stored_mask = cv2.imread(str(photos.masks[0]), cv2.IMREAD_GRAYSCALE)
    assert stored_mask is not None and stored_mask[:, :36].max() == 0 and stored_mask[:, 44:].min() == 255
    (folder / "masks" / name).unlink()
    assert finish(find_photos(folder / "images", tmp_path / "work"))[0].masks == ()


def test_vote_focal_length_finds_true_value() -> None:
    random = np.random.default_rng(2)
    size, true = (640, 480), 0.9 * 640
    inverse = np.linalg.inv(np.array([[true, 0, 320], [0, true, 240], [0, 0, 1]]))

    def fundamental() -> NDArray[np.float64]:
        rotation, _ = cv2.Rodrigues(random.normal(size=3) * 0.4)
        x, y, z = random.normal(size=3)
        return np.asarray(inverse.T @ np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ rotation @ inverse)

    def nonsense() -> NDArray[np.float64]:
        u, s, v = np.linalg.svd(inverse.T @ random.normal(size=(3, 3)) @ inverse)
        return np.asarray(u @ np.diag([s[0], s[1], 0]) @ v)

    fundamentals = [fundamental() for _ in range(20)] + [nonsense() for _ in range(20)]
    assert focal_voting.vote_focal_length(fundamentals, [1.0] * 40, [size] * 40) == pytest.approx(0.9, rel=0.02)
    assert focal_voting.vote_focal_length(fundamentals[:4], [1.0] * 4, [size] * 4) is None


def test_choose_pairs_by_sequence_map_and_exhaustively() -> None:
    nowhere = [None] * 6
    assert len(image_pairs.choose_pairs("auto", nowhere, in_sequence=False)) == 15
    assert image_pairs.choose_pairs("auto", [None] * 500, in_sequence=False) == image_pairs.sequential_pairs(500)
    long = image_pairs.sequential_pairs(500)
    assert all(0 <= i < j < 500 for i, j in long) and len(long) < 9000
    assert {(0, 1), (0, 10), (3, 19), (0, 499)} < set(long) and (0, 11) not in long
    assert image_pairs.sequential_pairs(3) == [(0, 1), (0, 2), (1, 2)]
    # About 11 m apart across the date line, then 5 km away; one photo without a position.
    places = [(60.0, 179.9999, 5.0), (60.0001, -179.9999, None), (60.05, 179.9999, None), None]
    assert image_pairs.spatial_pairs(places) == [(0, 1), (0, 3), (1, 3), (2, 3)]


def test_select_pairs_keeps_best_and_thins_others() -> None:
    """Photos on a line with overlap falling with distance: all neighbours, and a path between any two photos."""
    photos, best, further = 60, correspondences.BEST_PAIRS, correspondences.FURTHER_PAIR_STRIDE
    scores = {(i, j): 100 - (j - i) for i in range(photos) for j in range(i + 1, photos)}
    selection = correspondences.select_pairs(scores)
    assert selection == [pair for pair in scores if pair in set(selection)]
    assert {pair for pair in scores if pair[1] - pair[0] <= best // 2} <= set(selection)
    for photo in range(photos):
        pairs = sorted((pair for pair in scores if photo in pair), key=lambda pair: -scores[pair])
        further_count = sum(pair in selection for pair in pairs[best:])
        assert further_count >= (len(pairs) - best) // further
    assert max(j - i for i, j in selection) > photos - 2 * further  # including the two ends of the line
    assert len(selection) < 0.7 * len(scores)


def test_select_pairs_keeps_all_of_few_photos() -> None:
    scores = {(i, j): 6 + (7 * i + j) % 5 for i in range(17) for j in range(i + 1, 17)}
    assert correspondences.select_pairs(scores) == list(scores)


def test_assign_cameras_shares_equal_size_and_zoom() -> None:
    sizes = ((4, 3), (4, 3), (3, 4), (4, 3), (4, 3))
    photos = PhotoSet(Path(), tuple("abcde"), sizes, (3.0, 3.01, 3.0, 9.0, None), (None,) * 5)
    assert pose._assign_cameras(photos, "auto") == [0, 0, 1, 2, 3]
    assert pose._assign_cameras(photos, "per-photo") == [0, 1, 2, 3, 4]
    with pytest.raises(CaptureError, match="different sizes"):
        pose._assign_cameras(photos, "single")


def report(**changes: Any) -> PoseReport:
    values: dict[str, Any] = {
        "photos": 50, "registered": 50, "not_registered": [], "models": 1, "points": 10000, "reprojection_px": 0.6,
        "observations_per_view": 1500.0, "track_length": 6.9, "matches_consistent": 0.95, "pairs_consistent": 0.843,
        "focal_px": [700.0], "principal_point_refined": True, "max_image_size": 1000,
    }  # fmt: skip
    return PoseReport(**{**values, **changes})


def test_gates_separate_good_from_failed_models() -> None:
    assert find_failures(report()) == find_warnings(report()) == []
    # A global reconstruction with every photo, a small error, and cameras up to 80 degrees off.
    wrong = report(reprojection_px=0.633, track_length=6.02, matches_consistent=0.812, pairs_consistent=0.671)
    assert [clause.split(" agree")[0] for clause in find_failures(wrong)] == [
        "only 81 % of the matches",
        "only 67 % of the photo pairs",
    ]
    sparse = report(observations_per_view=127.7, track_length=3.27, pairs_consistent=1.0)  # cameras within 0.1 degrees
    assert find_warnings(sparse) == []
    broken_model = report(
        photos=29, registered=4, observations_per_view=34, track_length=3.54, matches_consistent=0.925
    )
    assert find_failures(broken_model)[0] == "only 4 of 29 photos could be registered"
    assert len(find_warnings(report(registered=44, reprojection_px=1.8))) == 2
    assert not find_failures(report(registered=44))


def test_consistency_shares_ignore_weak_pairs() -> None:
    """consistency_shares() in a process of its own, since its module imports pycolmap."""
    script = (
        "import zlib, numpy as np\n"
        "from lumigraph.captures.sfm.consistency import consistency_shares\n"
        "strong, weak = np.full(20, 300), np.full(20, 40)\n"
        "print(*consistency_shares(np.concatenate([strong, 0 * weak]), np.concatenate([strong, weak])))\n"
        "print(*consistency_shares(0 * weak, weak), *consistency_shares(weak[:0], weak[:0]))\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    matches, pairs_share, *weak_shares = map(float, result.stdout.split())
    assert matches == pytest.approx(6000 / 6800) and pairs_share == 1
    assert weak_shares == [0, 0, 0, 0]


def test_significant_shift_needs_precision() -> None:
    """Fox, a synthetic scene with exact centre, a facade (as measured), and a diverged camera."""
    script = (
        "import zlib\n"
        "from lumigraph.captures.sfm.bundle_adjustment import is_significant_shift\n"
        "shifts, stds = (.0080, .0024, .0199, .09, .0080), (.0005, .0005, .0017, .0005, float('nan'))\n"
        "print([is_significant_shift(*both) for both in zip(shifts, stds)])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[True, False, False, False, False]"


def test_thin_matches_keeps_longest_tracks_and_every_pair() -> None:
    """Three photos: 500 points seen by all, 100 feature pairs seen by photos 1 and 2 only."""
    script = (
        "import zlib, numpy as np, pycolmap\n"
        "from lumigraph.captures.sfm import tracks\n"
        "from lumigraph.captures.sfm.features import Features\n"
        "from lumigraph.captures.sfm.verification import VerifiedPair\n"
        "tracks.MIN_IMAGE_FEATURES, tracks.MIN_PAIR_MATCHES_KEPT = 300, 320\n"
        "photo = Features((9, 9), np.zeros((700, 2), np.float32), np.zeros((700, 128), np.uint8))\n"
        "def pair(i, j, rows):\n"
        "    geometry = pycolmap.TwoViewGeometry()\n"
        "    geometry.inlier_matches = np.stack([rows, rows], 1).astype(np.uint32)\n"
        "    return VerifiedPair((i, j), geometry)\n"
        "every = [pair(0, 1, np.arange(500)), pair(0, 2, np.arange(500)), pair(1, 2, np.arange(600))]\n"
        "few = tracks.thin_matches([photo] * 3, every)\n"
        "print([len(one.matches) for one in few], max(int(one.matches.max()) for one in few))\n"
        "print([one.pair for one in few], [len(one.matches) for one in every])\n"
        "print(tracks.connected_components(5, np.array([[4, 2], [2, 3]])).tolist(), tracks.thin_matches([photo], []))\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == [
        "[320, 320, 320] 319",
        "[(0, 1), (0, 2), (1, 2)] [500, 500, 600]",
        "[0, 1, 2, 2, 2] []",
    ]


# -- real captures -----------------------------------------------------------------------------------------------------


@slow
def test_estimate_fox(tmp_path: Path) -> None:
    if not (DATA / "fox").is_dir():
        pytest.skip(f"no {DATA / 'fox'}")
    photos, _ = finish(find_photos(DATA / "fox" / "images", tmp_path))
    report, _ = finish(pose.estimate(photos, tmp_path / "out"))
    assert report.registered == 50 and report.models == 1 and find_warnings(report) == []
    estimate, reference = colmap.read(tmp_path / "out"), transforms.read(DATA / "fox")
    index_of = {Path(name).stem: i for i, name in enumerate(reference.names)}
    truth = reference.cameras.world_from_cam[[index_of[Path(name).stem] for name in estimate.names]]
    degrees, distance = pose_errors(estimate.cameras, truth)
    assert degrees <= 0.3 and distance <= 0.001


@slow
def test_estimate_rejects_lund(tmp_path: Path) -> None:
    if not (DATA / "lund").is_dir():
        pytest.skip(f"no {DATA / 'lund'}")
    photos, _ = finish(find_photos(DATA / "lund", tmp_path))
    assert_rejected(photos, tmp_path / "out", r"only \d of 29 photos could be registered")


@slow
def test_estimate_video_frames(tmp_path: Path) -> None:
    if not (DATA / "video" / "can.mp4").is_file():
        pytest.skip(f"no {DATA / 'video' / 'can.mp4'}")
    frames, _ = finish(video.extract_frames(DATA / "video" / "can.mp4", tmp_path / "frames", 80))
    report, _ = finish(pose.estimate(frames, tmp_path / "out"))
    assert report.registered >= 0.95 * len(frames)
