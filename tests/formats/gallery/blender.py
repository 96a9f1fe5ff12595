"""Render a file with Blender: `python blender.py JOBS.json`, in an environment with the module `bpy`.

Jobs have the format of web/tests/viewers.mjs, with cameras in metres and z up. Prints a line of JSON for each job. The
project itself does not depend on this tool.
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
    rendered_objects = [item for item in scene.objects if item.type in ("MESH", "POINTCLOUD", "CURVES")]
    triangles = points = 0
    corners = []
    for item in rendered_objects:
        if item.type == "MESH":
            triangles += len(item.data.polygons)
            make_emissive(item)
        else:
            points += len(item.data.points)
            dots(item, job["reach"])
        corners += [item.matrix_world @ Vector(corner) for corner in item.bound_box]
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


def make_emissive(item: Any) -> None:
    """Make the texture emissive, so that the render shows its colours without lighting."""
    for material in item.data.materials:
        tree = material.node_tree
        pictures = [node for node in tree.nodes if node.type == "TEX_IMAGE"]
        if pictures:
            shine(tree, pictures[0].outputs["Color"])


def dots(item: Any, reach: float) -> None:
    material = bpy.data.materials.new("dots")
    material.use_nodes = True
    colour = material.node_tree.nodes.new("ShaderNodeAttribute")
    colour.attribute_name = "displayColor"
    shine(material.node_tree, colour.outputs["Color"])
    item.data.materials.clear()
    item.data.materials.append(material)


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
    scene.render.filepath = job["image"]
    scene.world = bpy.data.worlds.new("white")
    scene.world.use_nodes = True
    scene.world.node_tree.nodes["Background"].inputs["Color"].default_value = (1, 1, 1, 1)


if __name__ == "__main__":
    for item in json.loads(Path(sys.argv[1]).read_text()):
        print("FOUND " + json.dumps(show(item)), flush=True)
