"""Write COLMAP models with pycolmap, with the projections of their points: the reference for our reader.

Runs in a process of its own: `python write_colmap.py FOLDER`. The first import must be zlib: pycolmap bundles a copy of
that library, and if the system's zlib is loaded second, its first compression crashes.
"""

import zlib  # noqa: F401  isort: skip
import json
import sys
from pathlib import Path

import numpy as np
import pycolmap

WIDTH, HEIGHT = 64, 48
PARAMETERS = {
    "SIMPLE_PINHOLE": [60, 33, 23],
    "PINHOLE": [60, 62, 33, 23],
    "SIMPLE_RADIAL": [60, 33, 23, 0.08],
    "RADIAL": [60, 33, 23, 0.08, -0.03],
    "OPENCV": [60, 62, 33, 23, 0.05, -0.02, 0.003, -0.004],
    "OPENCV_FISHEYE": [40, 41, 33, 23, 0.02, -0.01, 0.003, -0.001],
    "FULL_OPENCV": [60, 62, 33, 23, 0.05, -0.02, 0.003, -0.004, 0.01, 0.02, 0.01, 0.003],
    "SIMPLE_RADIAL_FISHEYE": [40, 33, 23, 0.02],
    "RADIAL_FISHEYE": [40, 33, 23, 0.02, -0.01],
    "SIMPLE_FISHEYE": [40, 33, 23],
    "FISHEYE": [40, 41, 33, 23],
    "FOV": [60, 62, 33, 23, 0.4],
}


def camera(number: int, model: str) -> pycolmap.Camera:
    return pycolmap.Camera(camera_id=number, model=model, width=WIDTH, height=HEIGHT, params=PARAMETERS[model])


def pose(rng: np.random.Generator) -> pycolmap.Rigid3d:
    """A camera about 4 units from the origin that looks approximately at it, cam_from_world."""
    rotation = pycolmap.Rotation3d(rng.normal(0, 0.15, 3))
    return pycolmap.Rigid3d(rotation, [*rng.normal(0, 0.2, 2), 4 + rng.normal(0, 0.2)])


def keypoints(rec: pycolmap.Reconstruction, rng: np.random.Generator, ids: list[int]) -> None:
    """Points seen by two, three or four images, as COLMAP stores them, with gaps in the ids."""
    slots = dict.fromkeys(ids, 0)
    for i in range(30):
        track = pycolmap.Track()
        for image in rng.permutation(ids)[: 2 + i % 3]:
            track.add_element(int(image), slots[image])
            slots[image] += 1
        rec.add_point3D(rng.normal(0, 0.7, 3), track, rng.integers(0, 256, 3).astype(np.uint8))
    rec.delete_point3D(3)


def image(number: int, name: str, camera_id: int) -> pycolmap.Image:
    frame = pycolmap.Image(name=name, camera_id=camera_id, image_id=number)
    frame.points2D = pycolmap.Point2DList([pycolmap.Point2D(np.array([1.0, 2.0])) for _ in range(40)])
    return frame


def plain(model: str) -> pycolmap.Reconstruction:
    """Five images, each in its own frame, with gaps in the ids and names out of order."""
    rng = np.random.default_rng(len(model))
    rec = pycolmap.Reconstruction()
    rec.add_camera_with_trivial_rig(camera(7, model))
    ids = [12, 3, 40, 5, 9]
    for number, name in zip(ids, ["e.png", "a.png", "sub/b.png", "d.png", "c.png"], strict=True):
        rec.add_image_with_trivial_frame(image(number, name, 7), pose(rng))
    keypoints(rec, rng, ids)
    return rec


def rig() -> pycolmap.Reconstruction:
    """Two cameras on one rig, three frames: the pose of an image is sensor_from_rig times rig_from_world."""
    rng = np.random.default_rng(5)
    rec = pycolmap.Reconstruction()
    rec.add_camera(camera(1, "PINHOLE"))
    rec.add_camera(camera(2, "OPENCV"))
    rig = pycolmap.Rig(rig_id=1)
    rig.add_ref_sensor(rec.cameras[1].sensor_id)
    sensor_from_rig = pycolmap.Rigid3d(pycolmap.Rotation3d(np.array([0.0, 0.3, 0.1])), [0.4, 0.1, -0.2])
    rig.add_sensor(rec.cameras[2].sensor_id, sensor_from_rig)
    rec.add_rig(rig)
    number = 0
    for f in range(1, 4):
        frame = pycolmap.Frame(frame_id=f, rig_id=1)
        frame_images = []
        for c in (1, 2):
            number += 1
            view = image(number, f"{f}_{c}.png", c)
            view.frame_id = f
            frame.add_data_id(view.data_id)
            frame_images.append(view)
        frame.rig_from_world = pose(rng)
        rec.add_frame(frame)
        for view in frame_images:
            rec.add_image(view)
    keypoints(rec, rng, [1, 2, 3, 4, 5, 6])
    return rec


def truth(rec: pycolmap.Reconstruction) -> dict[str, object]:
    """Pixels of every point in every image, and the images of each point, by pycolmap, in order of point ids."""
    points = [rec.points3D[i] for i in sorted(rec.points3D)]
    pixels = {}
    for i in rec.reg_image_ids():
        view = rec.images[i]
        cam = view.cam_from_world() * np.array([p.xyz for p in points])
        pixels[view.name] = [rec.cameras[view.camera_id].img_from_cam(c).tolist() for c in cam]
    image_names = [sorted({rec.images[e.image_id].name for e in p.track.elements}) for p in points]
    xyz, colours = [p.xyz.tolist() for p in points], [p.color.tolist() for p in points]
    return {"pixels": pixels, "seen": image_names, "xyz": xyz, "colours": colours}


def main(folder: Path) -> None:
    frame = {model: plain(model) for model in PARAMETERS} | {"rig": rig()}
    for name, rec in frame.items():
        for form in ("bin", "txt"):
            target = folder / name / form / "sparse" / "0"
            target.mkdir(parents=True)
            (rec.write_binary if form == "bin" else rec.write_text)(target)
        (folder / name / "truth.json").write_text(json.dumps(truth(rec)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
