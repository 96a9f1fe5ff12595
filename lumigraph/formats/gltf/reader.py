"""glTF to one mesh, one cloud of points, or gaussians: everything that stands in the default scene, put together.

Cameras, lights, animations, skins and lines are left out, and of materials only the base colour is kept. A file that
mixes gaussians, triangles and points is refused: half of it would be lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lumigraph.formats.gltf.compression import DRACO, DRACO_SECONDS, MESHOPT, draco_decoded
from lumigraph.formats.gltf.gltf_file import File, Item, described
from lumigraph.formats.gltf.material import Surface, Surfaces, painted
from lumigraph.formats.gltf.writer import POINTS, SPLATS, TRIANGLES
from lumigraph.formats.io import to_tensor
from lumigraph.formats.texture_images import srgb_from_linear
from lumigraph.scene.assets import Mesh, Points, Splats
from lumigraph.scene.errors import FormatError
from lumigraph.scene.poses import Similarity

Array = npt.NDArray[Any]

LINES, STRIP, FAN = (1, 2, 3), 5, 6
UNDERSTOOD = {DRACO, MESHOPT, SPLATS, "KHR_mesh_quantization", "KHR_texture_transform"}
HARMLESS = ("KHR_materials_", "KHR_lights_", "EXT_lights_")  # such an extension changes nothing that is kept


def read(path: Path) -> Splats | Points | Mesh:
    """What a .glb or .gltf shows, in its own axes and unit, nodes applied. Raises FormatError, naming what is wrong.

    Memory: the file, and what is made of it, at most 64 times its size (of a small file, 64 MiB) and its textures.
    """
    file = File(Path(path))
    for name in map(str, file.root.entries("extensionsRequired")):
        if name not in UNDERSTOOD and not name.startswith(HARMLESS):
            raise FormatError(f"{path}: needs the glTF extension {name[:60]!r}, which is not read; export without it")
    parts = [(item, world) for item, world in _placed(file) if item.whole("mode", TRIANGLES) not in LINES]
    kinds = {_kind(item) for item, _ in parts}
    if not kinds:
        raise FormatError(f"{path}: its scene holds no triangles, points or gaussians, so there is nothing to show")
    if len(kinds) > 1:
        mixed = " and ".join(sorted(kinds))
        raise FormatError(f"{path}: mixes {mixed}, of which one kind at a time is read; export them apart")
    if "gaussians" in kinds:
        return _splats(file, parts)
    if "points" in kinds:
        return _points(file, parts)
    return _mesh(file, parts)


def _kind(primitive: Item) -> str:
    if primitive.extension(SPLATS) is not None:
        return "gaussians"
    return "points" if primitive.whole("mode", TRIANGLES) == POINTS else "triangles"


# --- the scene -------------------------------------------------------------------------------------------------------


def _placed(file: File) -> Iterator[tuple[Item, Array]]:
    """Each primitive of the scene with the matrix (4, 4) of its node. A node that is met twice, as in a circle, is an
    error by the format."""
    seen: set[int] = set()
    waiting: list[tuple[int, Array]] = [(index, np.eye(4)) for index in reversed(_roots(file))]
    while waiting:
        index, above = waiting.pop()
        if index in seen:
            raise FormatError(f"{file.path}: /nodes/{index}: has two parents or is its own; export the file again")
        seen.add(index)
        node = file.root.at("nodes", index)
        with np.errstate(all="ignore"):
            world = above @ _matrix(node)
        if (mesh := node.optional("mesh")) is not None:
            for primitive in file.root.at("meshes", mesh).items("primitives"):
                file.budget.take(1000)  # of bookkeeping
                yield primitive, world
        waiting += [(child, world) for child in reversed(node.indices("children"))]


def _roots(file: File) -> list[int]:
    """The nodes of the default scene; without scenes, those that hang on no other."""
    if file.root.entries("scenes"):
        return file.root.at("scenes", file.root.whole("scene", 0)).indices("nodes")
    children = {child for node in file.root.items("nodes") for child in node.indices("children")}
    return [i for i in range(len(file.root.entries("nodes"))) if i not in children]


def _matrix(node: Item) -> Array:
    if "matrix" in node.value:
        return np.array(node.numbers("matrix", [0.0] * 16)).reshape(4, 4).T  # column by column in the file
    x, y, z, w = node.numbers("rotation", [0.0, 0.0, 0.0, 1.0])
    length = x * x + y * y + z * z + w * w
    if not 0.5 < length < 2:
        raise node.wrong("'rotation' must be a unit quaternion")
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
class Part:
    """One primitive where its node puts it."""

    places: Array  # (V, 3) float32
    faces: Array  # (F, 3) int64; of points (0, 3)
    normals: Array | None  # (V, 3) float32, unit
    light: Array | None  # (V, 3) float32 linear, of COLOR_0
    uv: Array | None  # (V, 2) float32
    surface: Surface


def _part(file: File, surfaces: Surfaces, primitive: Item, world: Array) -> Part:
    attributes = _Attributes(file, primitive)
    places = attributes.floats("POSITION", (3,))
    if places is None:
        raise primitive.wrong("has no POSITION")
    surface = surfaces.of(primitive)
    normals, colours = attributes.floats("NORMAL", (3,)), attributes.floats("COLOR_0", (3, 4))
    uv = None if surface.texture is None else attributes.floats(f"TEXCOORD_{surface.uv_set}", (2,))
    rows = attributes.corners(len(places))
    mode = primitive.whole("mode", TRIANGLES, 0, 6)
    faces = np.zeros((0, 3), np.int64) if mode == POINTS else _triangles(rows, mode, primitive)
    used = rows if mode == POINTS and "indices" in primitive.value else slice(None)
    if np.linalg.det(world[:3, :3]) < 0:  # a mirror turns every triangle inside out
        faces = faces[:, ::-1]
    with np.errstate(all="ignore"):
        placed = (places @ world[:3, :3].T + world[:3, 3]).astype(np.float32)
        if normals is not None:
            normals = normals @ _cofactors(world[:3, :3]).T
            normals = (normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)).astype(np.float32)
    if not np.isfinite(placed).all() or not (normals is None or np.isfinite(normals).all()):
        raise primitive.wrong("lies beyond all bounds where its node puts it")
    light = None if colours is None else colours[:, :3].clip(0, 1)
    table = [None if values is None else values[used] for values in (normals, light, uv)]
    return Part(placed[used], faces, table[0], table[1], None if table[2] is None else surface.moved(table[2]), surface)


def _triangles(corners: Array, mode: int, primitive: Item) -> Array:
    if mode == TRIANGLES:
        if len(corners) % 3:
            raise primitive.wrong(f"{len(corners)} corners are no triangles")
        return corners.reshape(-1, 3)
    if mode == STRIP:  # every second triangle of a strip runs the other way round
        faces = np.stack([corners[:-2], corners[1:-1], corners[2:]], axis=1)
        faces[1::2] = faces[1::2, [1, 0, 2]]
        return faces
    if mode == FAN:
        return np.stack([corners[1:-1], corners[2:], np.broadcast_to(corners[:1], len(corners[2:]))], axis=1)
    raise primitive.wrong(f"mode {mode} is unknown")


def _cofactors(matrix: Array) -> Array:
    """What takes normals where `matrix` takes places, up to their length: the inverse, transposed, times |det|."""
    a, b, c = matrix.T
    turned: Array = np.stack([np.cross(b, c), np.cross(c, a), np.cross(a, b)], axis=1)
    return turned * np.float64(np.sign(np.linalg.det(matrix)))


class _Attributes:
    """The tables of a primitive, unpacked by Draco where it is so packed."""

    def __init__(self, file: File, primitive: Item) -> None:
        self.file, self.primitive = file, primitive
        self.names = primitive.item("attributes")
        self.faces: Array | None = None
        self.unpacked: dict[str, Array] = {}
        self.count = described(self._accessor("POSITION"))[0] if "POSITION" in self.names.value else 0
        packing = primitive.extension(DRACO)
        if packing is not None:
            self._unpack(packing)

    def _accessor(self, name: str) -> Item:
        return self.file.root.at("accessors", self.names.whole(name))

    def _unpack(self, packing: Item) -> None:
        corners = described(self.file.root.at("accessors", self.primitive.whole("indices")))[0]
        ids = packing.item("attributes")
        accessors = {name: self._accessor(name) for name in ids.value if name in self.names.value}
        row = sum(described(accessor)[1].itemsize * described(accessor)[2] for accessor in accessors.values())
        self.file.budget.take(2 * (corners * 4 + self.count * row))
        data = self.file.view(packing.whole("bufferView"))
        where = f"{self.file.path}: {packing.pointer}"
        with self.file.budget.hurry(DRACO_SECONDS * corners / 3):
            self.faces, tables = draco_decoded(data, corners // 3, self.count, where)
        for name, accessor in accessors.items():
            values, (_, kind, width) = tables.get(ids.whole(name)), described(accessor)
            if values is None or values.dtype != kind or values.shape != (self.count, width):
                raise packing.wrong(f"its stream has no {name} as the JSON says")
            if kind.kind == "f" and not np.isfinite(values).all():
                raise packing.wrong(f"{name} holds NaN or infinity")
            self.unpacked[name] = values

    def floats(self, name: str, widths: tuple[int, ...]) -> Array | None:
        """The attribute as float32, one row a vertex; None where there is none."""
        if name not in self.names.value:
            return None
        values = self.file.floats(self.names.whole(name), self.unpacked.get(name))
        if len(values) != self.count or values.shape[1] not in widths:
            raise self.names.wrong(
                f"{name} is {values.shape}, not one row of {widths} for each of {self.count} vertices"
            )
        return values

    def corners(self, vertices: int) -> Array:
        """(M,) int64: which vertices the primitive visits."""
        if self.faces is not None:
            stored = self.faces.reshape(-1, 1)
        elif (index := self.primitive.optional("indices")) is None:
            self.file.budget.take(8 * vertices)
            return np.arange(vertices)
        else:
            stored = self.file.table(index)
        self.file.budget.take(8 * len(stored))
        if stored.dtype.kind != "u" or stored.shape[1] != 1 or stored.max(initial=0) >= max(vertices, 1):
            raise self.primitive.wrong(f"'indices' must be numbers of its {vertices} vertices")
        return stored[:, 0].astype(np.int64)


# --- assets ----------------------------------------------------------------------------------------------------------


def _mesh(file: File, items: list[tuple[Item, Array]]) -> Mesh:
    surfaces = Surfaces(file)
    parts = [_part(file, surfaces, primitive, world) for primitive, world in items]
    starts = np.cumsum([0, *(len(part.places) for part in parts)])
    file.budget.take(64 * int(starts[-1]))
    if starts[-1] >= 2**31:
        raise FormatError(f"{file.path}: {starts[-1]} vertices are more than a mesh can have; split it")
    faces = np.concatenate([part.faces + start for part, start in zip(parts, starts[:-1], strict=True)])
    normals = [part.normals for part in parts if part.normals is not None]
    texture, uv = painted([(part.surface, part.uv, len(part.places)) for part in parts], surfaces)
    return Mesh(
        vertices=to_tensor(np.concatenate([part.places for part in parts])),
        faces=to_tensor(faces, np.int32),
        normals=to_tensor(np.concatenate(normals)) if len(normals) == len(parts) else None,
        uv=uv,
        rgb=_colours(parts, plain=texture is None),
        texture=texture,
    )


def _points(file: File, items: list[tuple[Item, Array]]) -> Points:
    surfaces = Surfaces(file)
    parts = [_part(file, surfaces, primitive, world) for primitive, world in items]
    normals = [part.normals for part in parts if part.normals is not None]
    return Points(
        to_tensor(np.concatenate([part.places for part in parts])),
        _colours(parts, plain=True),
        to_tensor(np.concatenate(normals)) if len(normals) == len(parts) else None,
    )


def _colours(parts: list[Part], plain: bool) -> torch.Tensor | None:
    """(V, 3) sRGB of the vertices; with `plain`, where no texture shows them, with the colours of their materials."""
    if all(part.light is None and (not plain or part.surface.colour == (1.0, 1.0, 1.0)) for part in parts):
        return None
    rows = []
    for part in parts:
        light = np.ones((len(part.places), 3), np.float32) if part.light is None else part.light
        shown = srgb_from_linear(light * np.array(part.surface.colour if plain else 1.0, np.float32))
        rows.append(np.rint(shown * 255).astype(np.uint8))
    return to_tensor(np.concatenate(rows), np.uint8)


def _splats(file: File, items: list[tuple[Item, Array]]) -> Splats:
    parts = [_gaussians(file, primitive).transform(_similarity(primitive, world)) for primitive, world in items]
    width = max(part.sh.shape[1] for part in parts)
    wide = [torch.nn.functional.pad(part.sh, (0, 0, 0, width - part.sh.shape[1])) for part in parts]
    made = Splats(
        torch.cat([part.means for part in parts]),
        torch.cat([part.log_scales for part in parts]),
        torch.cat([part.quats for part in parts]),
        torch.cat([part.logit_opacities for part in parts]),
        torch.cat(wide),
    )
    if not all(bool(values.isfinite().all()) for values in (made.means, made.log_scales, made.sh)):
        raise FormatError(f"{file.path}: gaussians lie beyond all bounds where their nodes put them; export it again")
    return made


def _gaussians(file: File, primitive: Item) -> Splats:
    meaning = primitive.extension(SPLATS)
    assert meaning is not None
    if meaning.text("kernel") != "ellipse" or meaning.text("colorSpace") != "srgb_rec709_display":
        raise FormatError(
            f"{file.path}: {meaning.pointer}: only gaussians of the kernel 'ellipse' with colours in"
            " 'srgb_rec709_display' are read; export them so"
        )
    attributes = _Attributes(file, primitive)

    def wanted(name: str, width: int) -> Array:
        values = attributes.floats(name, (width,))
        if values is None:
            raise primitive.wrong(f"has no {name}")
        return values

    degree = max(d for d in range(4) if d == 0 or f"{SPLATS}:SH_DEGREE_{d}_COEF_0" in attributes.names.value)
    names = [f"{SPLATS}:SH_DEGREE_{d}_COEF_{m}" for d in range(degree + 1) for m in range(2 * d + 1)]
    quats = wanted(f"{SPLATS}:ROTATION", 4)
    if (np.abs(quats).max(axis=1, initial=0) < 1e-6).any():
        raise primitive.wrong("a gaussian has a rotation of zero")
    opacities = wanted(f"{SPLATS}:OPACITY", 1)[:, 0].astype(np.float64).clip(1e-10, 1 - 2**-24)
    return Splats(
        to_tensor(wanted("POSITION", 3)),
        to_tensor(np.log(wanted(f"{SPLATS}:SCALE", 3).clip(min=1e-30))),
        to_tensor(quats[:, [3, 0, 1, 2]]),
        to_tensor(np.log(opacities / (1 - opacities))),
        to_tensor(np.stack([wanted(name, 3) for name in names], axis=1)),
    )


def _similarity(primitive: Item, world: Array) -> Similarity:
    """The node's matrix as one; gaussians cannot be squeezed along an axis that is not theirs."""
    axes = world[:3, :3]
    scale = float(np.cbrt(np.linalg.det(axes))) if np.isfinite(world).all() else 0.0
    if not 1e-20 < scale < 1e20 or np.abs(axes.T @ axes / scale**2 - np.eye(3)).max() > 1e-4:
        raise primitive.wrong("its node mirrors or squeezes the gaussians; apply the transform before exporting")
    return Similarity(scale, torch.from_numpy(axes / scale), torch.from_numpy(world[:3, 3].copy()))
