"""Seconds to find the cameras of photos, and how far they are from cameras that are known."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.cli import lumigraph, sample
from lumigraph.scene.capture import Capture
from lumigraph.scene.poses import align_similarity, rotation_error_degrees
from lumigraph.studio import catalogue

SCENES = ("sample", "fox")  # the rendered sample knows its cameras exactly, fox those that its publishers computed


def rows(data: Path, scenes: Sequence[str] = SCENES) -> Iterator[dict[str, object]]:
    """One row for each scene; photos alone go in, the known cameras are looked at afterwards."""
    for scene in scenes:
        if scene != "sample" and not (data / scene).is_dir():
            yield {"case": scene, "skipped": f"no {data / scene}"}
            continue
        with tempfile.TemporaryDirectory(prefix="lumigraph-bench-") as work:
            photos, known = data / scene / "images", data / scene
            if scene == "sample":
                photos, known = sample(Path(work, "sample"))
            found = Path(work, "found")
            _, seconds = lumigraph("pose", photos, "-o", found, "--quiet")
            yield {"case": scene, "wall_seconds": round(seconds, 1), **compare(read(found), read(known))}


def read(path: Path) -> Capture:
    return catalogue.capture_reader(path).read(path)


def compare(found: Capture, known: Capture) -> dict[str, object]:
    """Medians over the photos that both have, after the best similarity; positions relative to the cameras' spread."""
    place = {Path(name).stem: i for i, name in enumerate(known.names)}
    shared = [(i, place[Path(name).stem]) for i, name in enumerate(found.names) if Path(name).stem in place]
    ours = found.cameras[[i for i, _ in shared]].world_from_cam.double()
    truth = known.cameras[[i for _, i in shared]].world_from_cam.double()
    moved = align_similarity(ours[:, :, 3], truth[:, :, 3]).poses(ours)
    spread = (truth[:, :, 3] - truth[:, :, 3].mean(0)).norm(dim=1).square().mean().sqrt()
    distance = (moved[:, :, 3] - truth[:, :, 3]).norm(dim=1) / spread
    return {
        "photos": len(known),
        "found": len(found),
        "rotation_degrees": round(rotation_error_degrees(moved[..., :3], truth[..., :3]).median().item(), 3),
        "position_percent": round(100 * distance.median().item(), 3),
    }
