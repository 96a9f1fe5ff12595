"""Dump a COLMAP model as pycolmap reads it, with the projections of its points: the reference for our writer.

Runs in a process of its own, for the reason given in write_colmap.py: `python read_colmap.py MODEL`.
"""

import zlib  # noqa: F401  isort: skip
import json
import sys

import numpy as np
import pycolmap


def main(model: str) -> None:
    rec = pycolmap.Reconstruction(model)
    points = [rec.points3D[i] for i in sorted(rec.points3D)]
    images = {}
    for view in rec.images.values():
        camera = rec.cameras[view.camera_id]
        pose = view.cam_from_world()
        pixels = [camera.img_from_cam(pose * p.xyz) for p in points]
        keypoints = {int(p.point3D_id): p.xy.tolist() for p in view.points2D if p.has_point3D()}
        images[view.name] = {
            "model": camera.model.name,
            "params": camera.params.tolist(),
            "size": [camera.width, camera.height],
            "camera": view.camera_id,
            "pose": pose.matrix().tolist(),
            "pixels": [None if p is None else np.asarray(p).tolist() for p in pixels],
            "keypoints": [keypoints.get(i) for i in sorted(rec.points3D)],
        }
    names_of_point = [sorted({rec.images[e.image_id].name for e in p.track.elements}) for p in points]
    result = {"images": images, "seen": names_of_point, "cameras": len(rec.cameras)}
    result |= {"xyz": [p.xyz.tolist() for p in points], "rgb": [p.color.tolist() for p in points]}
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
