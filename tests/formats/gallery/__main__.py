"""What others make of our files: a run of the sample scene in every format, judged and drawn by programs of others.

    lumigraph sample SAMPLE && lumigraph train SAMPLE -o RUN --seconds 100 && lumigraph scale RUN --metres 0.6
    python -m tests.formats.gallery RUN [--only NAME ...]

Leaves the files in build/gallery, the pictures in docs/images/formats and the tables in docs/formats.md. On the PATH
must be node with the pages' packages (`make setup`), chromium, assimp and splat-transform (npm's
@playcanvas/splat-transform); $BLENDER names a Python that has the module bpy. A look at the pictures is part of it:
run it when a format changes, not with every test.
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

from tests.formats.gallery.assets import SIZE, Stage, View, likeness, opened_picture, stage, write
from tests.formats.gallery.cases import CASES, Case
from tests.formats.gallery.judges import GAUSSIANS, JUDGES, Verdict, pycolmap
from tests.formats.gallery.tables import Row, into_docs

ROOT = Path(__file__).parents[3]
BUILD, PICTURES = ROOT / "build" / "gallery", ROOT / "docs" / "images" / "formats"
RESULTS = BUILD / "results.json"
WITHIN = 0.005  # of the extent: bounds that a judge may see elsewhere


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--only", nargs="*", default=None, metavar="NAME")
    parser.add_argument("--pictures", action="store_true", help="of the files of the last time; nothing is written")
    asked = parser.parse_args()
    BUILD.mkdir(parents=True, exist_ok=True)
    PICTURES.mkdir(parents=True, exist_ok=True)
    shown = stage(asked.run, BUILD / "assets.pt")
    cases = [case for case in CASES if asked.only is None or case.name in asked.only]
    rows: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    jobs = []
    for case in cases:
        if not asked.pictures:
            rows[case.name] = rows.get(case.name, {}) | judged(shown, case)
            print(case.name, *rows[case.name]["verdicts"], sep="\n    ", flush=True)
            RESULTS.write_text(json.dumps(rows, indent=1))
        jobs.append(rows[case.name]["job"])
    rows |= captures(asked.run)
    for found in [*in_browser(jobs), *in_blender(jobs)]:
        drawn(shown, rows[found["name"]], found)
        RESULTS.write_text(json.dumps(rows, indent=1))
    files = [Row(case, **rows[case.name]) for case in CASES if case.name in rows]
    into_docs(files, rows["captures"], ROOT / "docs" / "formats.md")


def captures(run: Path) -> dict[str, Any]:
    """The run's own photos as the folders that other trainers begin from, and what is said of them."""
    source = Path(json.loads((run / "config.json").read_text())["capture"])
    photos = sum(1 for _ in (source / "images").iterdir())
    for form in ("colmap", "transforms"):
        command = [sys.executable, "-m", "lumigraph", "convert", source, BUILD / form, "--dataset", form, "-q"]
        if not (BUILD / form).exists():
            subprocess.run(command, check=True)
    written = json.loads((BUILD / "transforms" / "transforms.json").read_text())
    assert len(written["frames"]) == photos
    return {"captures": {"COLMAP": pycolmap(BUILD / "colmap" / "sparse" / "0", photos)}}


def judged(shown: Stage, case: Case) -> dict[str, Any]:
    """What the table says of a file, and the job of drawing it."""
    case.path(BUILD).parent.mkdir(parents=True, exist_ok=True)
    report, view, laid = write(shown, case, BUILD)
    said = []
    for name in case.judges:
        verdict = JUDGES[name](case.path(BUILD))
        assert verdict.count == len(laid) == report.count, f"{case.name}: {verdict.judge} counts {verdict.count:,}"
        check_place(case, verdict, laid, report.up)
        said.append(f"{verdict.judge}: {verdict.said}")
        if case.viewer == "laspy+xyz":
            as_text(verdict, case.path(BUILD))
    if case.viewer == "usd+spark":
        as_splats(case.path(BUILD))
    files = sum(file.stat().st_size for file in case.path(BUILD).parent.iterdir() if not file.name.startswith("read-"))
    return {"bytes": files, "verdicts": said, "count": report.count, "job": job_of(case, view, report)}


def check_place(case: Case, verdict: Verdict, laid: Any, up: str) -> None:
    """Fails where a judge sees the contents elsewhere."""
    ours, seen = laid.bounds().numpy(), verdict.bounds
    if case.kind == "splats":  # without their strays, which formats clip
        ours = ends(laid.means.numpy())
        if verdict.places is not None:
            turned = [1, -1, -1] if up == "+y" else 1  # to the axes of a PLY, which is what it was decoded to
            seen = ends(verdict.places * turned)
        else:
            ours = laid.bounds().numpy()
    off = np.abs(seen - ours).max() / np.ptp(ours, axis=0).max()
    assert off < WITHIN, f"{case.name}: {verdict.judge} sees {seen.tolist()}, not {ours.tolist()}"


def ends(places: Any) -> Any:
    return np.quantile(places, [0.01, 0.99], axis=0)


def job_of(case: Case, view: View, report: Any) -> dict[str, Any]:
    where = asdict(view)
    file = case.path(BUILD)
    if case.viewer == "blender":
        where = in_metres(where, report)
    if case.viewer == "transform+spark" and report.up == "+y":  # decoded to the axes of a PLY
        where |= {name: [where[name][0], -where[name][1], -where[name][2]] for name in ("eye", "target", "up")}
    job: dict[str, Any] = {"name": case.name, "viewer": case.viewer.rpartition("+")[2], "width": SIZE[0]} | where
    if "+" in case.viewer:
        file = next(file.parent.glob("read-*"))
    beside = {path.suffix: path.name for path in sorted(file.parent.iterdir()) if path != file}
    return job | {
        "height": SIZE[1],
        "file": str(file),
        "library": beside.get(".mtl"),
        "texture": beside.get(".png") or beside.get(".jpg"),
        "picture": str(BUILD / f"{file.parent.name}.png"),
        "unit": report.metres_per_unit,
    }


def in_metres(where: dict[str, Any], report: Any) -> dict[str, Any]:
    """The camera in Blender's room: in metres, z up; y up becomes z up by a quarter turn about x."""
    metres = report.metres_per_unit

    def turned(v: list[float]) -> list[float]:
        x, y, z = v
        return [x, -z, y] if report.up == "+y" else v

    ends = {name: [x * metres for x in turned(where[name])] for name in ("eye", "target")}
    return where | ends | {"up": turned(where["up"]), "reach": where["reach"] * metres}


def as_text(verdict: Verdict, file: Path) -> None:
    """What laspy read, for a viewer that does not know LAS."""
    table = np.hstack([verdict.places, verdict.colours])
    np.savetxt(file.with_name("read-by-laspy.xyz"), table, "%.4f %.4f %.4f %d %d %d")


def as_splats(file: Path) -> None:
    """What OpenUSD read, as a plain PLY of gaussians for a viewer that does not know USD."""
    from pxr import Usd

    held = Usd.Stage.Open(str(file))
    prim = next(one for one in held.Traverse() if one.GetTypeName() == GAUSSIANS)

    def values(name: str) -> Any:
        return np.array(prim.GetAttribute(name).Get())

    places, scales, opacities = values("positions"), np.log(values("scales")), values("opacities").clip(1e-6, 1 - 1e-6)
    turns = [(q.real, *q.imaginary) for q in prim.GetAttribute("orientations").Get()]
    sh = values("radiance:sphericalHarmonicsCoefficients").reshape(len(places), -1, 3)
    rest = sh[:, 1:].transpose(0, 2, 1).reshape(len(places), -1)
    table = np.hstack([places, sh[:, 0], rest, np.log(opacities / (1 - opacities))[:, None], scales, turns])
    names = ["x", "y", "z", *(f"f_dc_{i}" for i in range(3)), *(f"f_rest_{i}" for i in range(rest.shape[1])), "opacity"]
    names += [*(f"scale_{i}" for i in range(3)), *(f"rot_{i}" for i in range(4))]
    rows = np.rec.fromarrays(table.T.astype("<f4"), names=names)
    PlyData([PlyElement.describe(rows, "vertex")]).write(str(file.with_name("read-by-usd.ply")))


def in_browser(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return _told(
        ["node", str(ROOT / "web" / "tests" / "viewers.mjs")], [j for j in jobs if j["viewer"] != "blender"], ""
    )


def in_blender(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    wanted = [job for job in jobs if job["viewer"] == "blender"]
    if wanted and "BLENDER" not in os.environ:
        print("$BLENDER is not set: its pictures are left as they were")
        return []
    blender = os.environ.get("BLENDER", "")
    return _told([blender, str(Path(__file__).with_name("blender.py"))], wanted, "FOUND ")


def _told(command: list[str], jobs: list[dict[str, Any]], mark: str) -> list[dict[str, Any]]:
    if not jobs:
        return []
    with tempfile.NamedTemporaryFile("w", suffix=".json") as asked:
        json.dump(jobs, asked)
        asked.flush()
        told = subprocess.run([*command, asked.name], stdout=subprocess.PIPE, text=True, check=True).stdout
    return [json.loads(line.removeprefix(mark)) for line in told.splitlines() if line.startswith(mark or "{")]


def drawn(shown: Stage, row: dict[str, Any], found: dict[str, Any]) -> None:
    """A picture into the docs, with how much it is like the field drawn here, and like its mirror image."""
    if "error" in found:
        print(f"{found['name']}: {found['error']}", flush=True)
        return
    case = next(one for one in CASES if one.name == found["name"])
    name = case.path(BUILD).parent.name
    seen = opened_picture(BUILD / f"{name}.png")
    like, mirrored = likeness(seen, shown.picture), likeness(seen, shown.picture[:, ::-1])
    print(f"{case.name}: {like:.1f} dB like ours, {mirrored:.1f} dB like its mirror image; {found}", flush=True)
    row |= {"likeness": round(like, 1), "mirrored": round(mirrored, 1), "viewer": viewer_of(case, found)}
    small(seen, PICTURES / f"{name}.jpg")


def small(picture: Any, path: Path) -> None:
    """A JPEG as fine as 15 kB allow."""
    for quality in (80, 70, 60, 50, 40, 30):
        Image.fromarray(picture).save(path, quality=quality, optimize=True)
        if path.stat().st_size <= 15_000:
            return


def viewer_of(case: Case, found: dict[str, Any]) -> str:
    readers = {"laspy": "laspy and ", "usd": "OpenUSD and ", "transform": "splat-transform and "}
    first = readers[case.viewer.partition("+")[0]] if "+" in case.viewer else ""
    if case.viewer == "blender":
        return f"Blender {found['revision']}"
    if case.viewer.endswith("spark"):
        spark = json.loads((ROOT / "web/node_modules/@sparkjsdev/spark/package.json").read_text())["version"]
        return f"{first}Spark {spark}"
    return f"{first}three.js r{found['revision']}"


if __name__ == "__main__":
    main()
