"""glTF to one mesh, point cloud or set of gaussians: all primitives of the default scene, merged.

Ignores cameras, lights, animations, skins and lines, and all material properties except the base colour. Rejects a file
that mixes gaussians, triangles and points, since an asset can hold only one of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lumigraph.formats.gltf.compression import DRACO, DRACO_SECONDS_PER_FACE, MESHOPT, decode_draco
from lumigraph.formats.gltf.gltf_file import GltfFile, JsonItem, accessor_layout
from lumigraph.formats.gltf.material import BaseColour, MaterialReader, merge_textures
from lumigraph.formats.gltf.writer import POINTS_MODE, SPLATS_EXTENSION, TRIANGLES_MODE
from lumigraph.formats.io import to_tensor
from lumigraph.formats.texture_images import srgb_from_linear
from lumigraph.scene.assets import Mesh, Points, Splats
from lumigraph.scene.errors import FormatError
from lumigraph.scene.poses import Similarity

Array = npt.NDArray[Any]

LINE_MODES, STRIP_MODE, FAN_MODE = (1, 2, 3), 5, 6
SUPPORTED_EXTENSIONS = {DRACO, MESHOPT, SPLATS_EXTENSION, "KHR_mesh_quantization", "KHR_texture_transform"}
# Extensions that do not affect the properties read here.
IGNORED_PREFIXES = ("KHR_materials_", "KHR_lights_", "EXT_lights_")


def read(path: Path) -> Splats | Points | Mesh:
    """Read a .glb or .gltf in its own axes and unit, with node transforms applied. Raises FormatError.

    Memory: the file, and data of at most 64 times its size (64 MiB for a small file) plus its textures.
    """
    file = GltfFile(Path(path))
    for name in map(str, file.root.entries("extensionsRequired")):
        if name not in SUPPORTED_EXTENSIONS and not name.startswith(IGNORED_PREFIXES):
            raise FormatError(f"{path}: needs the glTF extension {name[:60]!r}, which is not read; export without it")
    parts = [
        (item, world)
        for item, world in _iterate_primitives(file)
        if item.integer("mode", TRIANGLES_MODE) not in LINE_MODES
    ]
    kinds = {_kind(item) for item, _ in parts}
    if not kinds:
        raise FormatError(f"{path}: its scene holds no triangles, points or gaussians, so there is nothing to show")
    if len(kinds) > 1:
        kind_list = " and ".join(sorted(kinds))
        raise FormatError(f"{path}: mixes {kind_list}, but only one kind per file is read; export them separately")
    if "gaussians" in kinds:
        return _splats(file, parts)
    if "points" in kinds:
        return _points(file, parts)
    return _mesh(file, parts)


def _kind(primitive: JsonItem) -> str:
    if primitive.extension(SPLATS_EXTENSION) is not None:
        return "gaussians"
    return "points" if primitive.integer("mode", TRIANGLES_MODE) == POINTS_MODE else "triangles"


# --- the scene -------------------------------------------------------------------------------------------------------


def _iterate_primitives(file: GltfFile) -> Iterator[tuple[JsonItem, Array]]:
    """Yield each primitive of the scene with the world matrix (4, 4) of its node.

    Raises FormatError for a node that occurs twice, for example in a cycle, which glTF forbids.
    """
    visited: set[int] = set()
    stack: list[tuple[int, Array]] = [(index, np.eye(4)) for index in reversed(_roots(file))]
    while stack:
        index, parent_world = stack.pop()
        if index in visited:
            raise FormatError(
                f"{file.path}: /nodes/{index}: has two parents or is its own ancestor; export the file again"
            )
        visited.add(index)
        node = file.root.at("nodes", index)
        with np.errstate(all="ignore"):
            world = parent_world @ _matrix(node)
        if (mesh := node.optional("mesh")) is not None:
            for primitive in file.root.at("meshes", mesh).items("primitives"):
                file.budget.take(1000)  # bytes of bookkeeping
                yield primitive, world
        stack += [(child, world) for child in reversed(node.indices("children"))]


def _roots(file: GltfFile) -> list[int]:
    """Nodes of the default scene; without scenes, all nodes without a parent."""
    if file.root.entries("scenes"):
        return file.root.at("scenes", file.root.integer("scene", 0)).indices("nodes")
    children = {child for node in file.root.items("nodes") for child in node.indices("children")}
    return [i for i in range(len(file.root.entries("nodes"))) if i not in children]


def _matrix(node: JsonItem) -> Array:
    if "matrix" in node.value:
        return np.array(node.numbers("matrix", [0.0] * 16)).reshape(4, 4).T  # column-major in the file
    x, y, z, w = node.numbers("rotation", [0.0, 0.0, 0.0, 1.0])
    length = x * x + y * y + z * z + w * w
    if not 0.5 < length < 2:
        raise node.error("'rotation' must be a unit quaternion")
    s = 2 / length
    matrix = np.eye(4)
    matrix[:3, :3] = [
        [1 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w)],
        [s * (x * y + z * w), 1 - s * (x * x + z * z), s * (y * z - x * w)],
        [s * (x * z - y * w), s * (y * z + x * w), 1 - s * (x * x + y * y)],
    ]
    matrix[:3, :3] *= node.numbers("scale", [1.0, 1.0, 1.0])
    matrix[:3, 3] = node.numbers("translation", [0.0, 0.0, 0.0])
    return matrix


# --- primitives ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MeshPart:
    """One primitive in world coordinates."""

    positions: Array  # (V, 3) float32
    faces: Array  # (F, 3) int64; (0, 3) for points
    normals: Array | None  # (V, 3) float32, unit
    light: Array | None  # (V, 3) float32 linear light, from COLOR_0
    uv: Array | None  # (V, 2) float32
    base_colour: BaseColour


def _part(file: GltfFile, materials: MaterialReader, primitive: JsonItem, world: Array) -> MeshPart:
    attributes = _Attributes(file, primitive)
    positions = attributes.floats("POSITION", (3,))
    if positions is None:
        raise primitive.error("has no POSITION")
    base_colour = materials.base_colour_of(primitive)
    normals, colours = attributes.floats("NORMAL", (3,)), attributes.floats("COLOR_0", (3, 4))
    uv = None if base_colour.texture is None else attributes.floats(f"TEXCOORD_{base_colour.uv_set}", (2,))
    rows = attributes.corners(len(positions))
    mode = primitive.integer("mode", TRIANGLES_MODE, 0, 6)
    faces = np.zeros((0, 3), np.int64) if mode == POINTS_MODE else _triangles(rows, mode, primitive)
    row_indices = rows if mode == POINTS_MODE and "indices" in primitive.value else slice(None)
    if np.linalg.det(world[:3, :3]) < 0:  # mirroring reverses the winding of triangles
        faces = faces[:, ::-1]
    with np.errstate(all="ignore"):
        world_positions = (positions @ world[:3, :3].T + world[:3, 3]).astype(np.float32)
        if normals is not None:
            normals = normals @ _cofactors(world[:3, :3]).T
            normals = (normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)).astype(np.float32)
    if not np.isfinite(world_positions).all() or not (normals is None or np.isfinite(normals).all()):
        raise primitive.error("is not finite after the transform of its node")
    light = None if colours is None else colours[:, :3].clip(0, 1)
    table = [None if values is None else values[row_indices] for values in (normals, light, uv)]
    return MeshPart(
        world_positions[row_indices],
        faces,
        table[0],
        table[1],
        None if table[2] is None else base_colour.transform_uv(table[2]),
        base_colour,
    )


def _triangles(corners: Array, mode: int, primitive: JsonItem) -> Array:
    if mode == TRIANGLES_MODE:
        if len(corners) % 3:
            raise primitive.error(f"{len(corners)} corners do not form triangles")
        return corners.reshape(-1, 3)
    if mode == STRIP_MODE:  # every second triangle of a strip has reversed winding
        faces = np.stack([corners[:-2], corners[1:-1], corners[2:]], axis=1)
        faces[1::2] = faces[1::2, [1, 0, 2]]
        return faces
    if mode == FAN_MODE:
        return np.stack([corners[1:-1], corners[2:], np.broadcast_to(corners[:1], len(corners[2:]))], axis=1)
    raise primitive.error(f"mode {mode} is unknown")


def _cofactors(matrix: Array) -> Array:
    """Cofactor matrix, which transforms normals up to length: inverse, transposed, times |det|."""
    a, b, c = matrix.T
    cofactors: Array = np.stack([np.cross(b, c), np.cross(c, a), np.cross(a, b)], axis=1)
    return cofactors * np.float64(np.sign(np.linalg.det(matrix)))


class _Attributes:
    """Attribute tables of a primitive, decoded with Draco if compressed."""

    def __init__(self, file: GltfFile, primitive: JsonItem) -> None:
        self.file, self.primitive = file, primitive
        self.names = primitive.item("attributes")
        self.faces: Array | None = None
        self.draco_tables: dict[str, Array] = {}
        self.count = accessor_layout(self._accessor("POSITION"))[0] if "POSITION" in self.names.value else 0
        packing = primitive.extension(DRACO)
        if packing is not None:
            self._decode_draco(packing)

    def _accessor(self, name: str) -> JsonItem:
        return self.file.root.at("accessors", self.names.integer(name))

    def _decode_draco(self, packing: JsonItem) -> None:
        corners = accessor_layout(self.file.root.at("accessors", self.primitive.integer("indices")))[0]
        ids = packing.item("attributes")
        accessors = {name: self._accessor(name) for name in ids.value if name in self.names.value}
        row = sum(
            accessor_layout(accessor)[1].itemsize * accessor_layout(accessor)[2] for accessor in accessors.values()
        )
        self.file.budget.take(2 * (corners * 4 + self.count * row))
        data = self.file.view(packing.integer("bufferView"))
        where = f"{self.file.path}: {packing.pointer}"
        with self.file.budget.limit_time(DRACO_SECONDS_PER_FACE * corners / 3):
            self.faces, tables = decode_draco(data, corners // 3, self.count, where)
        for name, accessor in accessors.items():
            values, (_, kind, width) = tables.get(ids.integer(name)), accessor_layout(accessor)
            if values is None or values.dtype != kind or values.shape != (self.count, width):
                raise packing.error(f"its stream has no {name} that matches the JSON")
            if kind.kind == "f" and not np.isfinite(values).all():
                raise packing.error(f"{name} holds NaN or infinity")
            self.draco_tables[name] = values

    def floats(self, name: str, widths: tuple[int, ...]) -> Array | None:
        """The attribute as float32, a row for each vertex; None if it is absent."""
        if name not in self.names.value:
            return None
        values = self.file.floats(self.names.integer(name), self.draco_tables.get(name))
        if len(values) != self.count or values.shape[1] not in widths:
            raise self.names.error(
                f"{name} is {values.shape}, not one row of {widths} for each of {self.count} vertices"
            )
        return values

    def corners(self, vertices: int) -> Array:
        """(M,) int64 vertex indices of the primitive."""
        if self.faces is not None:
            corner_values = self.faces.reshape(-1, 1)
        elif (index := self.primitive.optional("indices")) is None:
            self.file.budget.take(8 * vertices)
            return np.arange(vertices)
        else:
            corner_values = self.file.table(index)
        self.file.budget.take(8 * len(corner_values))
        if (
            corner_values.dtype.kind != "u"
            or corner_values.shape[1] != 1
            or corner_values.max(initial=0) >= max(vertices, 1)
        ):
            raise self.primitive.error(f"'indices' must be numbers of its {vertices} vertices")
        return corner_values[:, 0].astype(np.int64)


# --- assets ----------------------------------------------------------------------------------------------------------


def _mesh(file: GltfFile, items: list[tuple[JsonItem, Array]]) -> Mesh:
    materials = MaterialReader(file)
    parts = [_part(file, materials, primitive, world) for primitive, world in items]
    starts = np.cumsum([0, *(len(part.positions) for part in parts)])
    file.budget.take(64 * int(starts[-1]))
    if starts[-1] >= 2**31:
        raise FormatError(f"{file.path}: {starts[-1]} vertices are more than a mesh can hold; split it")
    faces = np.concatenate([part.faces + start for part, start in zip(parts, starts[:-1], strict=True)])
    normals = [part.normals for part in parts if part.normals is not None]
    texture, uv = merge_textures([(part.base_colour, part.uv, len(part.positions)) for part in parts], materials)
    return Mesh(
        vertices=to_tensor(np.concatenate([part.positions for part in parts])),
        faces=to_tensor(faces, np.int32),
        normals=to_tensor(np.concatenate(normals)) if len(normals) == len(parts) else None,
        uv=uv,
        rgb=_colours(parts, plain=texture is None),
        texture=texture,
    )


def _points(file: GltfFile, items: list[tuple[JsonItem, Array]]) -> Points:
    materials = MaterialReader(file)
    parts = [_part(file, materials, primitive, world) for primitive, world in items]
    normals = [part.normals for part in parts if part.normals is not None]
    return Points(
        to_tensor(np.concatenate([part.positions for part in parts])),
        _colours(parts, plain=True),
        to_tensor(np.concatenate(normals)) if len(normals) == len(parts) else None,
    )


def _colours(parts: list[MeshPart], plain: bool) -> torch.Tensor | None:
    """(V, 3) sRGB vertex colours. With `plain` (no texture) they include the base colours of the materials."""
    if all(part.light is None and (not plain or part.base_colour.colour == (1.0, 1.0, 1.0)) for part in parts):
        return None
    rows = []
    for part in parts:
        light = np.ones((len(part.positions), 3), np.float32) if part.light is None else part.light
        display = srgb_from_linear(light * np.array(part.base_colour.colour if plain else 1.0, np.float32))
        rows.append(np.rint(display * 255).astype(np.uint8))
    return to_tensor(np.concatenate(rows), np.uint8)


def _splats(file: GltfFile, items: list[tuple[JsonItem, Array]]) -> Splats:
    parts = [_gaussians(file, primitive).transform(_similarity(primitive, world)) for primitive, world in items]
    width = max(part.sh.shape[1] for part in parts)
    wide = [torch.nn.functional.pad(part.sh, (0, 0, 0, width - part.sh.shape[1])) for part in parts]
    splats = Splats(
        torch.cat([part.means for part in parts]),
        torch.cat([part.log_scales for part in parts]),
        torch.cat([part.quats for part in parts]),
        torch.cat([part.logit_opacities for part in parts]),
        torch.cat(wide),
    )
    if not all(bool(values.isfinite().all()) for values in (splats.means, splats.log_scales, splats.sh)):
        raise FormatError(f"{file.path}: gaussians are not finite after the transforms of their nodes; export it again")
    return splats


def _gaussians(file: GltfFile, primitive: JsonItem) -> Splats:
    extension = primitive.extension(SPLATS_EXTENSION)
    assert extension is not None
    if extension.text("kernel") != "ellipse" or extension.text("colorSpace") != "srgb_rec709_display":
        raise FormatError(
            f"{file.path}: {extension.pointer}: only gaussians of the kernel 'ellipse' with colours in"
            " 'srgb_rec709_display' are read; export them so"
        )
    attributes = _Attributes(file, primitive)

    def read_attribute(name: str, width: int) -> Array:
        values = attributes.floats(name, (width,))
        if values is None:
            raise primitive.error(f"has no {name}")
        return values

    degree = max(d for d in range(4) if d == 0 or f"{SPLATS_EXTENSION}:SH_DEGREE_{d}_COEF_0" in attributes.names.value)
    names = [f"{SPLATS_EXTENSION}:SH_DEGREE_{d}_COEF_{m}" for d in range(degree + 1) for m in range(2 * d + 1)]
    quats = read_attribute(f"{SPLATS_EXTENSION}:ROTATION", 4)
    if (np.abs(quats).max(axis=1, initial=0) < 1e-6).any():
        raise primitive.error("a gaussian has a rotation of zero")
    opacities = read_attribute(f"{SPLATS_EXTENSION}:OPACITY", 1)[:, 0].astype(np.float64).clip(1e-10, 1 - 2**-24)
    return Splats(
        to_tensor(read_attribute("POSITION", 3)),
        to_tensor(np.log(read_attribute(f"{SPLATS_EXTENSION}:SCALE", 3).clip(min=1e-30))),
        to_tensor(quats[:, [3, 0, 1, 2]]),
        to_tensor(np.log(opacities / (1 - opacities))),
        to_tensor(np.stack([read_attribute(name, 3) for name in names], axis=1)),
    )


def _similarity(primitive: JsonItem, world: Array) -> Similarity:
    """The world matrix as a similarity. Gaussians cannot be scaled along arbitrary axes."""
    axes = world[:3, :3]
    scale = float(np.cbrt(np.linalg.det(axes))) if np.isfinite(world).all() else 0.0
    if not 1e-20 < scale < 1e20 or np.abs(axes.T @ axes / scale**2 - np.eye(3)).max() > 1e-4:
        raise primitive.error("its node mirrors or squeezes the gaussians; apply the transform before exporting")
    return Similarity(scale, torch.from_numpy(axes / scale), torch.from_numpy(world[:3, 3].copy()))
