"""3D Tiles 1.1 (OGC 22-025r4): points for the web, in an octree that viewers load tile by tile.

`tileset.json` describes the tiles, which are .glb files in a folder next to it. Refinement is additive: a tile stays
visible when its children are loaded. The points of a cube are a range of the Morton order. Its tile holds every k-th
point of the range, and its octants hold the others. Right-handed, z up, metres; the .glb are y up, as glTF is, and
viewers rotate them: (x, y, z) of the tileset is (x, z, -y) there.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from lumigraph.formats.gltf import gltf_format as gltf
from lumigraph.formats.io import check_finite, open_atomic, open_for_read, to_numpy, to_tensor
from lumigraph.formats.quantization import MORTON_BITS, morton_codes
from lumigraph.formats.texture_images import resolve_companion
from lumigraph.scene.assets import Points
from lumigraph.scene.errors import FormatError
from lumigraph.scene.field import Bounds

NAME = "3D Tiles"
SUFFIXES = ("tileset.json",)  # also a name such as town-tileset.json; its tiles are in a folder next to it
HOLDS: tuple[type, ...] = (Points,)
UP = "+z"
METRES = 1.0

Json = dict[str, Any]
Rows = npt.NDArray[np.int64]

ERROR_PER_SPACING = 8.0  # geometric error per point spacing; viewers usually refine when it spans 16 pixels
MIN_TILE_DIVISOR = 32  # an octant with fewer points than this fraction of a tile is merged into its parent
TILESET_MAX_BYTES = 1 << 25  # of JSON
MAX_TILES, MAX_DEPTH = 100_000, 64
TILES_MAX_GROWTH = 64  # data read from the tiles may take this many times their size,
TILES_MIN_BUDGET_BYTES = 1 << 26  # or this much for small ones
GLTF_FROM_TILESET = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], np.float32)  # rotation


@dataclass(frozen=True)
class Options:
    """Size and compression of the tiles.

    tile: maximum number of points in a tile
    compression: meshopt (a third of the size; supported by CesiumJS and three.js) or none (any reader)
    position_bits: bits per coordinate of compressed tiles; 14 bits are 1/16000 of a tile's extent
    """

    tile: Annotated[int, Bounds(1000, 1_000_000)] = 50_000
    compression: Literal["none", "meshopt"] = "none"
    position_bits: Annotated[int, Bounds(8, 16)] = 14


# --- writing ---------------------------------------------------------------------------------------------------------


def write(asset: Points, path: Path, options: Options = Options()) -> None:
    """Write the folder of tiles, then the file that names them, each atomically. Raises FormatError."""
    path = Path(path)
    if not isinstance(asset, Points):
        raise FormatError(f"{path}: 3D Tiles holds points here; write a mesh or gaussians as .glb")
    if not len(asset):
        raise FormatError(f"{path}: not written, because there are no points, and 3D Tiles cannot be empty")
    xyz = to_numpy(asset.xyz)
    check_finite(path, points=xyz)
    low, high = xyz.min(axis=0).astype(float), xyz.max(axis=0).astype(float)
    side = float((high - low).max())
    octree = _Octree(morton_codes(xyz, low, low + side), options.tile)
    root_error = ERROR_PER_SPACING * side / math.sqrt(options.tile)
    name = f"{path.stem}-{_digest(asset, options)}"
    with open_atomic(path) as main, _folder(path.with_name(name)) as folder:
        trees: dict[str, Json] = {}
        for cube in octree.cubes():
            tile_points = asset.select(torch.from_numpy(cube.tile_rows))
            tile_path = folder / f"{cube.name}.glb"
            gltf.write(_to_gltf_axes(tile_points), tile_path, gltf.Options(options.compression, options.position_bits))
            trees[cube.name] = {
                "boundingVolume": {"box": _box(xyz[cube.subtree_rows], options.position_bits)},
                "geometricError": root_error / 2**cube.depth if cube.has_children else 0.0,
                "content": {"uri": f"{name}/{cube.name}.glb"},
            }
            if cube.depth:
                trees[cube.name[:-1]].setdefault("children", []).append(trees[cube.name])
        root = trees["r"] | {"refine": "ADD"}
        tileset = {
            "asset": {"version": "1.1"},
            "geometricError": max(float(np.linalg.norm(high - low)), root_error),  # the error without any tile
            "root": root,
        }
        main.write(json.dumps(tileset, separators=(",", ":"), allow_nan=False).encode())


@dataclass(frozen=True)
class _Cube:
    """Cube of the octree. Its name is the path to it: r for the root, then the number of the octant at each level."""

    name: str
    tile_rows: Rows  # points in its tile
    subtree_rows: Rows  # points in its tile and in those below
    has_children: bool

    @property
    def depth(self) -> int:
        return len(self.name) - 1


class _Octree:
    """Octree of points with the Morton codes `code` (N,)."""

    def __init__(self, code: npt.NDArray[np.uint64], tile: int) -> None:
        self.order = np.argsort(code, kind="stable")
        self.code, self.tile = code[self.order], tile

    def cubes(self) -> Iterator[_Cube]:
        """Yield all cubes, parents before children."""
        queue = deque([("r", np.arange(len(self.code)))])
        while queue:
            name, rows = queue.popleft()
            tile_rows, octants = self._split(rows, len(name) - 1)
            yield _Cube(name, self.order[tile_rows], self.order[rows], bool(octants))
            queue.extend((name + octant, part) for octant, part in octants.items())

    def _split(self, rows: Rows, depth: int) -> tuple[Rows, dict[str, Rows]]:
        """Split the rows of a cube into those of its tile and those of its octants."""
        if len(rows) <= self.tile:
            return rows, {}
        min_tile_rows = self.tile // MIN_TILE_DIVISOR
        own_count = self.tile - 8 * min_tile_rows
        own_positions = (np.arange(own_count) + 0.5) * (len(rows) / own_count)
        other_rows = np.delete(rows, own_positions.astype(np.int64))
        if depth < MORTON_BITS:
            octant_of_row = self.code[other_rows] >> np.uint64(3 * (MORTON_BITS - 1 - depth)) & np.uint64(7)
            parts = np.split(other_rows, np.searchsorted(octant_of_row, np.arange(1, 8)))
        else:  # more coincident points than a tile may hold
            parts = np.array_split(other_rows, 8)
        small_octants = [part for part in parts if len(part) <= min_tile_rows]
        tile_rows = np.sort(np.concatenate([rows[own_positions.astype(np.int64)], *small_octants]))
        return tile_rows, {str(octant): part for octant, part in enumerate(parts) if len(part) > min_tile_rows}


def _to_gltf_axes(points: Points) -> Points:
    """Rotate points to the axes of glTF, y up."""
    rotation = torch.from_numpy(GLTF_FROM_TILESET)
    return Points(points.xyz @ rotation.T, points.rgb, None if points.normals is None else points.normals @ rotation.T)


def _box(xyz: npt.NDArray[np.float32], bits: int) -> list[float]:
    """Centre and three half axes of the bounding box, enlarged for coordinates rounded to `bits`."""
    low, high = xyz.min(axis=0).astype(float), xyz.max(axis=0).astype(float)
    half = (high - low) / 2 + max(float((high - low).max()) / 2**bits, 1e-6)
    return [*((low + high) / 2).tolist(), half[0], 0.0, 0.0, 0.0, half[1], 0.0, 0.0, 0.0, half[2]]


def _digest(asset: Points, options: Options) -> str:
    """Content hash for the folder name: two scenes, or two versions of one, never share a folder."""
    digest = sha256(repr(options).encode())
    for table in (asset.xyz, asset.rgb, asset.normals):
        if table is not None:
            digest.update(np.ascontiguousarray(to_numpy(table)).data)
    return digest.hexdigest()[:8]


@contextmanager
def _folder(out: Path) -> Iterator[Path]:
    """Create a folder that replaces `out` if the block succeeds, and is removed otherwise."""
    new, old = (out.with_name(f"{out.name}.tmp-{os.getpid()}{mark}") for mark in ("", "-old"))
    try:
        new.mkdir()
        yield new
        if out.exists():
            out.replace(old)
        new.replace(out)
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


# --- reading ---------------------------------------------------------------------------------------------------------


def read(path: Path) -> Points:
    """Read the points of all tiles, coarse tiles first. With refinement REPLACE, reads only the finest tiles.

    Raises FormatError for tiles that are not points, or that are outside the folder of `path`.
    """
    path = Path(path)
    parts: list[Points] = []
    size = data_bytes = 0
    for content, world in _contents(path):
        size += content.stat().st_size if content.is_file() else 0
        part = gltf.read(content)
        if not isinstance(part, Points):
            raise FormatError(f"{content}: a tile without points; only tiles of points are supported")
        data_bytes += len(part) * 28
        if data_bytes > max(TILES_MIN_BUDGET_BYTES, TILES_MAX_GROWTH * size):
            raise FormatError(
                f"{path}: its tiles would decode to more than {TILES_MAX_GROWTH} times their size; fetch it again"
            )
        parts.append(_to_tileset_axes(part, world, path))
    if not parts:
        raise FormatError(f"{path}: names no tiles with content, so there is nothing to show")
    rgb = [part.rgb for part in parts if part.rgb is not None]
    normals = [part.normals for part in parts if part.normals is not None]
    return Points(
        torch.cat([part.xyz for part in parts]),
        torch.cat(rgb) if len(rgb) == len(parts) else None,
        torch.cat(normals) if len(normals) == len(parts) else None,
    )


def _to_tileset_axes(part: Points, world: npt.NDArray[np.float64], path: Path) -> Points:
    """Transform points from glTF axes to those of the tileset with the matrix of the tile."""
    error = FormatError(f"{path}: a tile is not finite after its transform; fetch it again")
    with np.errstate(all="ignore"):
        linear = world[:3, :3] @ GLTF_FROM_TILESET.T
        if not (np.abs(world) < 1e30).all():
            raise error
        xyz = (to_numpy(part.xyz) @ linear.T + world[:3, 3]).astype(np.float32)
        normals = None
        if part.normals is not None:
            normals_out = to_numpy(part.normals) @ np.linalg.pinv(linear)
            normals = normals_out / np.maximum(np.linalg.norm(normals_out, axis=1, keepdims=True), 1e-30)
    if not np.isfinite(xyz).all() or (normals is not None and not np.isfinite(normals).all()):
        raise error
    return Points(to_tensor(xyz), part.rgb, None if normals is None else to_tensor(normals))


def _contents(path: Path) -> Iterator[tuple[Path, npt.NDArray[np.float64]]]:
    """Yield the file of each tile to read, with its world matrix."""
    root = _tree(path).get("root")
    queue: deque[tuple[object, npt.NDArray[np.float64], str, int]] = deque([(root, np.eye(4), "REPLACE", 0)])
    visited: set[Path] = set()
    count = 0
    while queue:
        tile, parent_world, refine, depth = queue.popleft()
        count += 1
        if not isinstance(tile, dict) or count > MAX_TILES or depth > MAX_DEPTH:
            raise _tileset_error(
                path, f"a tile that is not an object, or more than {MAX_TILES} tiles, or more than {MAX_DEPTH} levels"
            )
        if "implicitTiling" in tile:
            raise FormatError(f"{path}: implicit tiling is not supported; list the tiles explicitly")
        refine = tile.get("refine", refine)
        with np.errstate(all="ignore"):
            world, children = parent_world @ _matrix(tile, path), tile.get("children", [])
        contents = tile.get("contents", [tile["content"]] if "content" in tile else [])
        if refine not in ("ADD", "REPLACE") or not isinstance(children, list) or not isinstance(contents, list):
            raise _tileset_error(path, "'refine', 'children' or 'contents' of another type")
        for content in contents if refine == "ADD" or not children else []:
            uri = content.get("uri") if isinstance(content, dict) else None
            if not isinstance(uri, str) or not uri.lower().endswith((".glb", ".gltf")):
                raise FormatError(
                    f"{path}: a tile {str(uri)[:100]!r} that is not a .glb; only glTF tiles are supported"
                )
            file = resolve_companion(path, uri)
            if file in visited:
                raise _tileset_error(path, f"the tile {uri[:100]!r} twice")
            visited.add(file)
            yield file, world
        queue.extend((child, world, refine, depth + 1) for child in children)


def _tree(path: Path) -> Json:
    with open_for_read(path) as stream:
        text = stream.read(TILESET_MAX_BYTES + 1)
    if len(text) > TILESET_MAX_BYTES:
        raise FormatError(f"{path}: more than {TILESET_MAX_BYTES} bytes of JSON; split the tileset")
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(
            f"{path}: not a tileset, its JSON cannot be read ({str(error)[:80]}); fetch it again"
        ) from error
    asset = tree.get("asset") if isinstance(tree, dict) else None
    if not isinstance(asset, dict) or asset.get("version") not in ("1.0", "1.1"):
        raise FormatError(f"{path}: not a tileset of 3D Tiles 1.0 or 1.1; export it again in one of these")
    return dict(tree)


def _matrix(tile: Json, path: Path) -> npt.NDArray[np.float64]:
    """Matrix (4, 4) of a tile, stored column-major."""
    numbers = tile.get("transform", np.eye(4).ravel().tolist())
    is_list = isinstance(numbers, list) and len(numbers) == 16
    if not is_list or not all(type(x) in (int, float) and abs(x) < 1e12 for x in numbers):
        raise _tileset_error(path, "a 'transform' that is not 16 finite numbers")
    return np.array(numbers, np.float64).reshape(4, 4).T


def _tileset_error(path: Path, reason: str) -> FormatError:
    return FormatError(f"{path}: has {reason}; it is not a valid tileset, export it again")
