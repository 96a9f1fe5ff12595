"""A file as Blender opens it: `python blender.py JOBS.json`, in an environment that has Blender as the module `bpy`.

Jobs are those of web/tests/viewers.mjs, their cameras in metres of a room whose z is up; a line of JSON for each. A
tool that looks at our files: nothing of the project needs it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import bpy  # type: ignore[import-not-found]
from mathutils import Matrix, Vector  # type: ignore[import-not-found]

OPENERS = {
    ".fbx": lambda path: bpy.ops.wm.fbx_import(filepath=path),
    ".obj": lambda path: bpy.ops.wm.obj_import(filepath=path),
    ".usdc": lambda path: bpy.ops.wm.usd_import(filepath=path),
    ".usdz": lambda path: bpy.ops.wm.usd_import(filepath=path),
}


def show(job: dict[str, Any]) -> dict[str, Any]:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    OPENERS[job["file"][job["file"].rindex(".") :]](job["file"])
    scene = bpy.context.scene
    seen = [one for one in scene.objects if one.type in ("MESH", "POINTCLOUD", "CURVES")]
    triangles = points = 0
    corners = []
    for one in seen:
        if one.type == "MESH":
            triangles += len(one.data.polygons)
            plain(one)
        else:
            points += len(one.data.points)
            dots(one, job["reach"])
        corners += [one.matrix_world @ Vector(corner) for corner in one.bound_box]
    look(scene, job)
    bpy.ops.render.render(write_still=True)
    box = [[end(c[axis] for c in corners) for axis in range(3)] for end in (min, max)]
    return {
        "name": job["name"],
        "triangles": triangles,
        "points": points,
        "box": box,
        "revision": bpy.app.version_string,
    }


def plain(one: Any) -> None:
    """The picture on the surface shines by itself, so that it is seen in its own colours."""
    for material in one.data.materials:
        tree = material.node_tree
        pictures = [node for node in tree.nodes if node.type == "TEX_IMAGE"]
        if pictures:
            shine(tree, pictures[0].outputs["Color"])


def dots(one: Any, reach: float) -> None:
    material = bpy.data.materials.new("dots")
    material.use_nodes = True
    colour = material.node_tree.nodes.new("ShaderNodeAttribute")
    colour.attribute_name = "displayColor"
    shine(material.node_tree, colour.outputs["Color"])
    one.data.materials.clear()
    one.data.materials.append(material)


def shine(tree: Any, colour: Any) -> None:
    light = tree.nodes.new("ShaderNodeEmission")
    tree.links.new(colour, light.inputs["Color"])
    out = next(node for node in tree.nodes if node.type == "OUTPUT_MATERIAL")
    tree.links.new(light.outputs["Emission"], out.inputs["Surface"])


def look(scene: Any, job: dict[str, Any]) -> None:
    back = (Vector(job["eye"]) - Vector(job["target"])).normalized()
    right = Vector(job["up"]).cross(back).normalized()
    pose = Matrix((right, back.cross(right), back)).transposed().to_4x4()
    pose.translation = Vector(job["eye"])
    lens = bpy.data.cameras.new("camera")
    lens.sensor_fit, lens.angle_y = "VERTICAL", job["fov"] * 3.141592653589793 / 180
    lens.clip_start, lens.clip_end = job["reach"] / 200, job["reach"] * 20
    camera = bpy.data.objects.new("camera", lens)
    camera.matrix_world = pose
    scene.collection.objects.link(camera)
    scene.camera = camera
    scene.render.engine, scene.cycles.samples, scene.cycles.device = "CYCLES", 16, "CPU"
    scene.cycles.use_denoising = False
    scene.render.resolution_x, scene.render.resolution_y = job["width"], job["height"]
    scene.view_settings.view_transform = "Standard"
    scene.render.image_settings.file_format = "PNG"
    scene.render.filepath = job["picture"]
    scene.world = bpy.data.worlds.new("white")
    scene.world.use_nodes = True
    scene.world.node_tree.nodes["Background"].inputs["Color"].default_value = (1, 1, 1, 1)


if __name__ == "__main__":
    for one in json.loads(Path(sys.argv[1]).read_text()):
        print("FOUND " + json.dumps(show(one)), flush=True)
