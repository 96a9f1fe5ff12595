"""Marching cubes in plain torch and Python, on a dense volume, cell by cell. Slow: a specification.

Where the faces of a cell are ambiguous the inside corners are cut apart, which decides the loops in which the surface
crosses the cell; how a loop is cut into triangles is left open, so that loops are what is compared.
"""

from torch import Tensor

Corner = tuple[int, int, int]
Crossing = tuple[Corner, Corner]  # the edge between an inside and an outside voxel


def loops(values: Tensor) -> list[list[Crossing]]:
    """values (Z, Y, X), NaN where unknown -> the polygons of all cells, counter-clockwise from outside, as crossings
    (inside voxel, outside voxel), each voxel (x, y, z)."""
    depth, height, width = values.shape
    value = values.tolist()
    found = []
    for z in range(depth - 1):
        for y in range(height - 1):
            for x in range(width - 1):
                cell = {
                    (x + i, y + j, z + k): value[z + k][y + j][x + i] for i in (0, 1) for j in (0, 1) for k in (0, 1)
                }
                if all(v == v for v in cell.values()):
                    found += _cell({corner for corner, v in cell.items() if v < 0}, (x, y, z))
    return found


def _cell(inside: set[Corner], low: Corner) -> list[list[Crossing]]:
    """Follows the segments that the surface cuts out of the six faces."""
    follows: dict[Crossing, Crossing] = {}
    for axis in range(3):
        for side in (0, 1):
            square = _face(low, axis, side)
            for i in range(4):
                a, b = square[i], square[(i + 1) % 4]
                if a in inside and b not in inside:
                    j = i
                    while square[j] in inside:
                        j -= 1
                    follows[(square[(j + 1) % 4], square[j % 4])] = (a, b)
    polygons = []
    while follows:
        start, to = follows.popitem()
        polygon = [start]
        while to != start:
            polygon.append(to)
            to = follows.pop(to)
        polygons.append(polygon)
    return polygons


def _face(low: Corner, axis: int, side: int) -> list[Corner]:
    """The corners of a face of the cell, counter-clockwise from outside the cell."""
    b, c = (axis + 1) % 3, (axis + 2) % 3
    corners = []
    for p, q in ((0, 0), (1, 0), (1, 1), (0, 1)):
        offset = [0, 0, 0]
        offset[axis], offset[b], offset[c] = side, p, q
        corners.append((low[0] + offset[0], low[1] + offset[1], low[2] + offset[2]))
    return corners if side else corners[::-1]


def place(values: Tensor, crossing: Crossing) -> tuple[float, float, float]:
    """Where between the two voxels the surface passes, (x, y, z) in voxels."""
    (x, y, z), (u, v, w) = crossing
    a, b = float(values[z, y, x]), float(values[w, v, u])
    t = min(0.999, max(0.001, a / (a - b)))
    if (u, v, w) < (x, y, z):  # the share is kept off both ends as seen from the lower voxel
        t = 1 - min(0.999, max(0.001, b / (b - a)))
    return x + t * (u - x), y + t * (v - y), z + t * (w - z)
