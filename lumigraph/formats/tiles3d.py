"""3D Tiles 1.1 (OGC 22-025r4): points for the web, in an octree of which a viewer fetches what it needs.

`tileset.json` says where each tile lies; the tiles are .glb files in a folder beside it. Refinement is additive: what a
tile shows stays where the tiles below it are shown. A cube's points are a run of Morton's curve; its tile holds every
k-th of the run, and the eighths of the cube hold the rest. Right-handed, z up, metres; the .glb are y up, as glTF is,
and viewers turn them: (x, y, z) of the tileset is (x, z, -y) there.
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
from lumigraph.formats.texture_images import beside
from lumigraph.scene.assets import Points
from lumigraph.scene.errors import FormatError
from lumigraph.scene.field import Bounds

NAME = "3D Tiles"
SUFFIXES = ("tileset.json",)  # of a name such as town-tileset.json too; its tiles lie in a folder beside
HOLDS: tuple[type, ...] = (Points,)
UP = "+z"
METRES = 1.0

Json = dict[str, Any]
Rows = npt.NDArray[np.int64]

APART = 8.0  # times their distance is the error of points: viewers ask for more where it spans 16 pixels, as a rule
CRUMB = 32  # an eighth of a cube with fewer points than this part of a tile has no tile of its own
TEXT_LIMIT = 1 << 25  # bytes of JSON
MOST_TILES, DEEPEST = 100_000, 64
GROWTH, FLOOR = 64, 1 << 26  # bytes that are made of the tiles: so many times theirs, or so many of small ones
Y_UP = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], np.float32)  # takes (x, y, z) of the tileset to glTF


@dataclass(frozen=True)
class Options:
    """What the tiles are like.

    tile: points in a tile at most
    compression: meshopt (a third of the size, and CesiumJS and three.js open it), or none (any reader)
    position_bits: bits per coordinate where tiles are compressed; 14 are a 16000th of a tile's extent
    """

    tile: Annotated[int, Bounds(1000, 1_000_000)] = 50_000
    compression: Literal["none", "meshopt"] = "none"
    position_bits: Annotated[int, Bounds(8, 16)] = 14


# --- writing ---------------------------------------------------------------------------------------------------------


def write(asset: Points, path: Path, options: Options = Options()) -> None:
    """The tiles first, as a folder that is whole or absent, then the file that names them. Raises FormatError."""
    path = Path(path)
    if not isinstance(asset, Points):
        raise FormatError(f"{path}: 3D Tiles holds points here; write a mesh or gaussians as .glb")
    if not len(asset):
        raise FormatError(f"{path}: not written, because there are no points, and 3D Tiles cannot hold none")
    xyz = to_numpy(asset.xyz)
    check_finite(path, points=xyz)
    low, high = xyz.min(axis=0).astype(float), xyz.max(axis=0).astype(float)
    side = float((high - low).max())
    octree = _Octree(morton_codes(xyz, low, low + side), options.tile)
    error = APART * side / math.sqrt(options.tile)
    name = f"{path.stem}-{_digest(asset, options)}"
    with open_atomic(path) as main, _folder(path.with_name(name)) as folder:
        trees: dict[str, Json] = {}
        for cube in octree.cubes():
            some = asset.select(torch.from_numpy(cube.own))
            tile_path = folder / f"{cube.name}.glb"
            gltf.write(_turned(some), tile_path, gltf.Options(options.compression, options.position_bits))
            trees[cube.name] = {
                "boundingVolume": {"box": _box(xyz[cube.all], options.position_bits)},
                "geometricError": error / 2**cube.depth if cube.divided else 0.0,
                "content": {"uri": f"{name}/{cube.name}.glb"},
            }
            if cube.depth:
                trees[cube.name[:-1]].setdefault("children", []).append(trees[cube.name])
        root = trees["r"] | {"refine": "ADD"}
        whole = {
            "asset": {"version": "1.1"},
            "geometricError": max(float(np.linalg.norm(high - low)), error),  # of showing nothing
            "root": root,
        }
        main.write(json.dumps(whole, separators=(",", ":"), allow_nan=False).encode())


@dataclass(frozen=True)
class _Cube:
    """Part of the octree. Its name says the way to it: r for the root, then which eighth each time."""

    name: str
    own: Rows  # what its tile holds
    all: Rows  # ... and what the tiles below hold
    divided: bool

    @property
    def depth(self) -> int:
        return len(self.name) - 1


class _Octree:
    """`code` (N,): where on Morton's curve through the cube each point lies."""

    def __init__(self, code: npt.NDArray[np.uint64], tile: int) -> None:
        self.order = np.argsort(code, kind="stable")
        self.code, self.tile = code[self.order], tile

    def cubes(self) -> Iterator[_Cube]:
        """Each before those in it."""
        waiting = deque([("r", np.arange(len(self.code)))])
        while waiting:
            name, run = waiting.popleft()
            own, eighths = self._divided(run, len(name) - 1)
            yield _Cube(name, self.order[own], self.order[run], bool(eighths))
            waiting.extend((name + which, part) for which, part in eighths.items())

    def _divided(self, run: Rows, depth: int) -> tuple[Rows, dict[str, Rows]]:
        """What the tile of a cube takes of its run, and what its eighths get."""
        if len(run) <= self.tile:
            return run, {}
        crumb = self.tile // CRUMB
        share = self.tile - 8 * crumb
        own = (np.arange(share) + 0.5) * (len(run) / share)
        rest = np.delete(run, own.astype(np.int64))
        if depth < MORTON_BITS:
            octant = self.code[rest] >> np.uint64(3 * (MORTON_BITS - 1 - depth)) & np.uint64(7)
            parts = np.split(rest, np.searchsorted(octant, np.arange(1, 8)))
        else:  # more points at one place than a tile may hold
            parts = np.array_split(rest, 8)
        crumbs = [part for part in parts if len(part) <= crumb]
        taken = np.sort(np.concatenate([run[own.astype(np.int64)], *crumbs]))
        return taken, {str(which): part for which, part in enumerate(parts) if len(part) > crumb}


def _turned(points: Points) -> Points:
    """Y up."""
    turn = torch.from_numpy(Y_UP)
    return Points(points.xyz @ turn.T, points.rgb, None if points.normals is None else points.normals @ turn.T)


def _box(xyz: npt.NDArray[np.float32], bits: int) -> list[float]:
    """Centre and three half axes, with room for coordinates that are rounded to so many bits."""
    low, high = xyz.min(axis=0).astype(float), xyz.max(axis=0).astype(float)
    half = (high - low) / 2 + max(float((high - low).max()) / 2**bits, 1e-6)
    return [*((low + high) / 2).tolist(), half[0], 0.0, 0.0, 0.0, half[1], 0.0, 0.0, 0.0, half[2]]


def _digest(asset: Points, options: Options) -> str:
    """Two scenes, or two versions of one, never share a folder: one that is replaced stays whole until the end."""
    found = sha256(repr(options).encode())
    for table in (asset.xyz, asset.rgb, asset.normals):
        if table is not None:
            found.update(np.ascontiguousarray(to_numpy(table)).data)
    return found.hexdigest()[:8]


@contextmanager
def _folder(out: Path) -> Iterator[Path]:
    """A new folder that becomes `out`, whatever was there, when the block ends well, and vanishes when it does not."""
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
    """The points of all tiles, coarser tiles first; of tiles that are replaced, only what replaces them. Raises
    FormatError for tiles that are no points, or lie elsewhere than in the folder of `path` or one within."""
    path = Path(path)
    parts: list[Points] = []
    size = made = 0
    for content, world in _contents(path):
        size += content.stat().st_size if content.is_file() else 0
        part = gltf.read(content)
        if not isinstance(part, Points):
            raise FormatError(f"{content}: a tile that holds no points; only tiles of points are read")
        made += len(part) * 28
        if made > max(FLOOR, GROWTH * size):
            raise FormatError(
                f"{path}: its tiles would unfold into more than {GROWTH} times their size; fetch it again"
            )
        parts.append(_placed(part, world, path))
    if not parts:
        raise FormatError(f"{path}: names no tiles with something in them, so there is nothing to show")
    rgb = [part.rgb for part in parts if part.rgb is not None]
    normals = [part.normals for part in parts if part.normals is not None]
    return Points(
        torch.cat([part.xyz for part in parts]),
        torch.cat(rgb) if len(rgb) == len(parts) else None,
        torch.cat(normals) if len(normals) == len(parts) else None,
    )


def _placed(part: Points, world: npt.NDArray[np.float64], path: Path) -> Points:
    """Out of glTF's axes into those of the tileset, by the tile's matrix."""
    lost = FormatError(f"{path}: a tile lies beyond all bounds where its matrix puts it; fetch it again")
    with np.errstate(all="ignore"):
        linear = world[:3, :3] @ Y_UP.T
        if not (np.abs(world) < 1e30).all():
            raise lost
        xyz = (to_numpy(part.xyz) @ linear.T + world[:3, 3]).astype(np.float32)
        normals = None
        if part.normals is not None:
            turned = to_numpy(part.normals) @ np.linalg.pinv(linear)
            normals = turned / np.maximum(np.linalg.norm(turned, axis=1, keepdims=True), 1e-30)
    if not np.isfinite(xyz).all() or (normals is not None and not np.isfinite(normals).all()):
        raise lost
    return Points(to_tensor(xyz), part.rgb, None if normals is None else to_tensor(normals))


def _contents(path: Path) -> Iterator[tuple[Path, npt.NDArray[np.float64]]]:
    """The file of each tile that is to be shown, with its matrix."""
    root = _tree(path).get("root")
    waiting: deque[tuple[object, npt.NDArray[np.float64], str, int]] = deque([(root, np.eye(4), "REPLACE", 0)])
    seen: set[Path] = set()
    count = 0
    while waiting:
        tile, above, refine, depth = waiting.popleft()
        count += 1
        if not isinstance(tile, dict) or count > MOST_TILES or depth > DEEPEST:
            raise _wrong(
                path, f"a tile that is no object, or more than {MOST_TILES} tiles, or {DEEPEST} one in another"
            )
        if "implicitTiling" in tile:
            raise FormatError(f"{path}: its tiles are named by a rule (implicit tiling), which is not read; list them")
        refine = tile.get("refine", refine)
        with np.errstate(all="ignore"):
            world, below = above @ _matrix(tile, path), tile.get("children", [])
        listed = tile.get("contents", [tile["content"]] if "content" in tile else [])
        if refine not in ("ADD", "REPLACE") or not isinstance(below, list) or not isinstance(listed, list):
            raise _wrong(path, "'refine', 'children' or 'contents' of another form")
        for content in listed if refine == "ADD" or not below else []:
            uri = content.get("uri") if isinstance(content, dict) else None
            if not isinstance(uri, str) or not uri.lower().endswith((".glb", ".gltf")):
                raise FormatError(f"{path}: a tile {str(uri)[:100]!r} that is no .glb; only tiles of glTF are read")
            file = beside(path, uri)
            if file in seen:
                raise _wrong(path, f"the tile {uri[:100]!r} twice")
            seen.add(file)
            yield file, world
        waiting.extend((child, world, refine, depth + 1) for child in below)


def _tree(path: Path) -> Json:
    with open_for_read(path) as stream:
        text = stream.read(TEXT_LIMIT + 1)
    if len(text) > TEXT_LIMIT:
        raise FormatError(f"{path}: more than {TEXT_LIMIT} bytes of JSON; split the tileset")
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: no tileset, its JSON cannot be read ({str(error)[:80]}); fetch it again") from error
    said = tree.get("asset") if isinstance(tree, dict) else None
    if not isinstance(said, dict) or said.get("version") not in ("1.0", "1.1"):
        raise FormatError(f"{path}: no tileset of 3D Tiles 1.0 or 1.1; make it again in one of these")
    return dict(tree)


def _matrix(tile: Json, path: Path) -> npt.NDArray[np.float64]:
    """Column by column in the file."""
    numbers = tile.get("transform", np.eye(4).ravel().tolist())
    good = isinstance(numbers, list) and len(numbers) == 16
    if not good or not all(type(x) in (int, float) and abs(x) < 1e12 for x in numbers):
        raise _wrong(path, "a 'transform' that is not 16 finite numbers")
    return np.array(numbers, np.float64).reshape(4, 4).T


def _wrong(path: Path, what: str) -> FormatError:
    return FormatError(f"{path}: has {what}; it is no tileset that can be read, make it again")
