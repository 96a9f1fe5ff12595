"""Gallery of formats: export a run of the sample scene to every format, then check and render it externally.

    lumigraph sample SAMPLE && lumigraph train SAMPLE -o RUN --seconds 100 && lumigraph scale RUN --metres 0.6
    python -m tests.formats.gallery RUN [--only NAME ...]

Writes the files to build/gallery, the images to docs/images/formats and the tables to docs/formats.md. The PATH must
contain node with the pages' packages (`make setup`), chromium, assimp and splat-transform (npm's
@playcanvas/splat-transform); $BLENDER names a Python with the module bpy. Inspect the images;
run the gallery when a format changes, not with every test.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from plyfile import PlyData, PlyElement

from tests.formats.gallery.assets import IMAGE_SIZE, Stage, View, likeness, load_image, stage, write
from tests.formats.gallery.cases import CASES, Case
from tests.formats.gallery.judges import GAUSSIANS, JUDGES, Verdict, pycolmap
from tests.formats.gallery.tables import Row, update_docs

ROOT = Path(__file__).parents[3]
BUILD, PICTURES = ROOT / "build" / "gallery", ROOT / "docs" / "images" / "formats"
RESULTS = BUILD / "results.json"
BOUNDS_TOLERANCE = 0.005  # tolerance of bounds as a fraction of the extent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--only", nargs="*", default=None, metavar="NAME")
    parser.add_argument("--pictures", action="store_true", help="only render the files of the last run")
    arguments = parser.parse_args()
    BUILD.mkdir(parents=True, exist_ok=True)
    PICTURES.mkdir(parents=True, exist_ok=True)
    gallery_stage = stage(arguments.run, BUILD / "assets.pt")
    cases = [case for case in CASES if arguments.only is None or case.name in arguments.only]
    rows: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    jobs = []
    for case in cases:
        if not arguments.pictures:
            rows[case.name] = rows.get(case.name, {}) | evaluate_case(gallery_stage, case)
            print(case.name, *rows[case.name]["verdicts"], sep="\n    ", flush=True)
            RESULTS.write_text(json.dumps(rows, indent=1))
        jobs.append(rows[case.name]["job"])
    rows |= export_captures(arguments.run)
    for result in [*in_browser(jobs), *in_blender(jobs)]:
        publish_image(gallery_stage, rows[result["name"]], result)
        RESULTS.write_text(json.dumps(rows, indent=1))
    files = [Row(case, **rows[case.name]) for case in CASES if case.name in rows]
    update_docs(files, rows["captures"], ROOT / "docs" / "formats.md")


def export_captures(run: Path) -> dict[str, Any]:
    """Export the photos of the run for other trainers, and validate the result."""
    source = Path(json.loads((run / "config.json").read_text())["capture"])
    photos = sum(1 for _ in (source / "images").iterdir())
    for dataset in ("colmap", "transforms"):
        command = [sys.executable, "-m", "lumigraph", "convert", source, BUILD / dataset, "--dataset", dataset, "-q"]
        if not (BUILD / dataset).exists():
            subprocess.run(command, check=True)
    transforms = json.loads((BUILD / "transforms" / "transforms.json").read_text())
    assert len(transforms["frames"]) == photos
    return {"captures": {"COLMAP": pycolmap(BUILD / "colmap" / "sparse" / "0", photos)}}


def evaluate_case(gallery_stage: Stage, case: Case) -> dict[str, Any]:
    """Export and check a file; returns its table entries and its rendering job."""
    case.path(BUILD).parent.mkdir(parents=True, exist_ok=True)
    report, view, file_asset = write(gallery_stage, case, BUILD)
    comments = []
    for name in case.judges:
        verdict = JUDGES[name](case.path(BUILD))
        assert verdict.count == len(file_asset) == report.count, (
            f"{case.name}: {verdict.judge} counts {verdict.count:,}"
        )
        check_bounds(case, verdict, file_asset, report.up)
        comments.append(f"{verdict.judge}: {verdict.comments}")
        if case.viewer == "laspy+xyz":
            as_text(verdict, case.path(BUILD))
    if case.viewer == "usd+spark":
        as_splats(case.path(BUILD))
    files = sum(file.stat().st_size for file in case.path(BUILD).parent.iterdir() if not file.name.startswith("read-"))
    return {"bytes": files, "verdicts": comments, "count": report.count, "job": job_of(case, view, report)}


def check_bounds(case: Case, verdict: Verdict, file_asset: Any, up: str) -> None:
    """Fails if the bounds that a judge reports differ."""
    expected_bounds, image = file_asset.bounds().numpy(), verdict.bounds
    if case.kind == "splats":  # without outliers, which formats clip
        expected_bounds = quantile_bounds(file_asset.means.numpy())
        if verdict.positions is not None:
            to_blender = [1, -1, -1] if up == "+y" else 1  # to the axes of the decoded PLY
            image = quantile_bounds(verdict.positions * to_blender)
        else:
            expected_bounds = file_asset.bounds().numpy()
    error = np.abs(image - expected_bounds).max() / np.ptp(expected_bounds, axis=0).max()
    assert error < BOUNDS_TOLERANCE, (
        f"{case.name}: {verdict.judge} sees {image.tolist()}, not {expected_bounds.tolist()}"
    )


def quantile_bounds(positions: Any) -> Any:
    return np.quantile(positions, [0.01, 0.99], axis=0)


def job_of(case: Case, view: View, report: Any) -> dict[str, Any]:
    camera = asdict(view)
    file = case.path(BUILD)
    if case.viewer == "blender":
        camera = in_metres(camera, report)
    if case.viewer == "transform+spark" and report.up == "+y":  # decoded to PLY axes
        camera |= {name: [camera[name][0], -camera[name][1], -camera[name][2]] for name in ("eye", "target", "up")}
    job: dict[str, Any] = {"name": case.name, "viewer": case.viewer.rpartition("+")[2], "width": IMAGE_SIZE[0]} | camera
    if "+" in case.viewer:
        file = next(file.parent.glob("read-*"))
    companions = {path.suffix: path.name for path in sorted(file.parent.iterdir()) if path != file}
    return job | {
        "height": IMAGE_SIZE[1],
        "file": str(file),
        "library": companions.get(".mtl"),
        "texture": companions.get(".png") or companions.get(".jpg"),
        "image": str(BUILD / f"{file.parent.name}.png"),
        "unit": report.metres_per_unit,
    }


def in_metres(camera: dict[str, Any], report: Any) -> dict[str, Any]:
    """Convert the camera to Blender's coordinates: metres, z up. y up becomes z up by a quarter turn about x."""
    metres = report.metres_per_unit

    def to_blender(v: list[float]) -> list[float]:
        x, y, z = v
        return [x, -z, y] if report.up == "+y" else v

    quantile_bounds = {name: [x * metres for x in to_blender(camera[name])] for name in ("eye", "target")}
    return camera | quantile_bounds | {"up": to_blender(camera["up"]), "reach": camera["reach"] * metres}


def as_text(verdict: Verdict, file: Path) -> None:
    """Write the points read by laspy as text, for a viewer without LAS support."""
    table = np.hstack([verdict.positions, verdict.colours])
    np.savetxt(file.with_name("read-by-laspy.xyz"), table, "%.4f %.4f %.4f %d %d %d")


def as_splats(file: Path) -> None:
    """Write the gaussians read by OpenUSD as PLY, for a viewer without USD support."""
    from pxr import Usd

    usd_stage = Usd.Stage.Open(str(file))
    prim = next(item for item in usd_stage.Traverse() if item.GetTypeName() == GAUSSIANS)

    def values(name: str) -> Any:
        return np.array(prim.GetAttribute(name).Get())

    positions, scales, opacities = (
        values("positions"),
        np.log(values("scales")),
        values("opacities").clip(1e-6, 1 - 1e-6),
    )
    turns = [(q.real, *q.imaginary) for q in prim.GetAttribute("orientations").Get()]
    sh = values("radiance:sphericalHarmonicsCoefficients").reshape(len(positions), -1, 3)
    sh_rest = sh[:, 1:].transpose(0, 2, 1).reshape(len(positions), -1)
    table = np.hstack([positions, sh[:, 0], sh_rest, np.log(opacities / (1 - opacities))[:, None], scales, turns])
    names = [
        "x",
        "y",
        "z",
        *(f"f_dc_{i}" for i in range(3)),
        *(f"f_rest_{i}" for i in range(sh_rest.shape[1])),
        "opacity",
    ]
    names += [*(f"scale_{i}" for i in range(3)), *(f"rot_{i}" for i in range(4))]
    rows = np.rec.fromarrays(table.T.astype("<f4"), names=names)
    PlyData([PlyElement.describe(rows, "vertex")]).write(str(file.with_name("read-by-usd.ply")))


def in_browser(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return _run_jobs(
        ["node", str(ROOT / "web" / "tests" / "viewers.mjs")], [j for j in jobs if j["viewer"] != "blender"], ""
    )


def in_blender(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    blender_jobs = [job for job in jobs if job["viewer"] == "blender"]
    if blender_jobs and "BLENDER" not in os.environ:
        print("$BLENDER is not set: its images are not updated")
        return []
    blender = os.environ.get("BLENDER", "")
    return _run_jobs([blender, str(Path(__file__).with_name("blender.py"))], blender_jobs, "FOUND ")


def _run_jobs(command: list[str], jobs: list[dict[str, Any]], mark: str) -> list[dict[str, Any]]:
    if not jobs:
        return []
    with tempfile.NamedTemporaryFile("w", suffix=".json") as arguments:
        json.dump(jobs, arguments)
        arguments.flush()
        output = subprocess.run([*command, arguments.name], stdout=subprocess.PIPE, text=True, check=True).stdout
    return [json.loads(line.removeprefix(mark)) for line in output.splitlines() if line.startswith(mark or "{")]


def publish_image(gallery_stage: Stage, row: dict[str, Any], result: dict[str, Any]) -> None:
    """Publish a rendered image, and compare it with our render and its mirror image."""
    if "error" in result:
        print(f"{result['name']}: {result['error']}", flush=True)
        return
    case = next(item for item in CASES if item.name == result["name"])
    name = case.path(BUILD).parent.name
    image = load_image(BUILD / f"{name}.png")
    score, mirrored = likeness(image, gallery_stage.picture), likeness(image, gallery_stage.picture[:, ::-1])
    print(
        f"{case.name}: {score:.1f} dB against our render, {mirrored:.1f} dB against its mirror image; {result}",
        flush=True,
    )
    row |= {"likeness": round(score, 1), "mirrored": round(mirrored, 1), "viewer": viewer_of(case, result)}
    save_small_jpeg(image, PICTURES / f"{name}.jpg")


def save_small_jpeg(picture: Any, path: Path) -> None:
    """Save a JPEG with the best quality within 15 kB."""
    for quality in (80, 70, 60, 50, 40, 30):
        Image.fromarray(picture).save(path, quality=quality, optimize=True)
        if path.stat().st_size <= 15_000:
            return


def viewer_of(case: Case, result: dict[str, Any]) -> str:
    readers = {"laspy": "laspy and ", "usd": "OpenUSD and ", "transform": "splat-transform and "}
    first = readers[case.viewer.partition("+")[0]] if "+" in case.viewer else ""
    if case.viewer == "blender":
        return f"Blender {result['revision']}"
    if case.viewer.endswith("spark"):
        spark = json.loads((ROOT / "web/node_modules/@sparkjsdev/spark/package.json").read_text())["version"]
        return f"{first}Spark {spark}"
    return f"{first}three.js r{result['revision']}"


if __name__ == "__main__":
    main()
