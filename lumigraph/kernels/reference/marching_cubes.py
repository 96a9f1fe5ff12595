"""Reference implementation of marching cubes on a dense volume, cell by cell in plain Python.

On an ambiguous face the inside corners are separated. This determines the polygons in which the surface crosses a cell.
Their triangulation is not specified, so tests compare polygons.
"""

from torch import Tensor

Corner = tuple[int, int, int]
Crossing = tuple[Corner, Corner]  # the edge between an inside and an outside voxel


def extract_polygons(values: Tensor) -> list[list[Crossing]]:
    """Extract polygons from values (Z, Y, X), NaN if unknown -> polygons of all cells, counter-clockwise from outside.

    A polygon is a list of crossings (inside voxel, outside voxel); a voxel is (x, y, z).
    """
    depth, height, width = values.shape
    value = values.tolist()
    polygons = []
    for z in range(depth - 1):
        for y in range(height - 1):
            for x in range(width - 1):
                cell = {
                    (x + i, y + j, z + k): value[z + k][y + j][x + i] for i in (0, 1) for j in (0, 1) for k in (0, 1)
                }
                if all(v == v for v in cell.values()):
                    polygons += _extract_cell({corner for corner, v in cell.items() if v < 0}, (x, y, z))
    return polygons


def _extract_cell(inside: set[Corner], low: Corner) -> list[list[Crossing]]:
    """Link the segments in which the surface crosses the six faces."""
    next_crossing: dict[Crossing, Crossing] = {}
    for axis in range(3):
        for side in (0, 1):
            square = _face_corners(low, axis, side)
            for i in range(4):
                a, b = square[i], square[(i + 1) % 4]
                if a in inside and b not in inside:
                    j = i
                    while square[j] in inside:
                        j -= 1
                    next_crossing[(square[(j + 1) % 4], square[j % 4])] = (a, b)
    polygons = []
    while next_crossing:
        start, end = next_crossing.popitem()
        polygon = [start]
        while end != start:
            polygon.append(end)
            end = next_crossing.pop(end)
        polygons.append(polygon)
    return polygons


def _face_corners(low: Corner, axis: int, side: int) -> list[Corner]:
    """Return the corners of one face of a cell, counter-clockwise from outside the cell."""
    b, c = (axis + 1) % 3, (axis + 2) % 3
    corners = []
    for p, q in ((0, 0), (1, 0), (1, 1), (0, 1)):
        offset = [0, 0, 0]
        offset[axis], offset[b], offset[c] = side, p, q
        corners.append((low[0] + offset[0], low[1] + offset[1], low[2] + offset[2]))
    return corners if side else corners[::-1]


def interpolate_crossing(values: Tensor, crossing: Crossing) -> tuple[float, float, float]:
    """Return the point (x, y, z), in voxels, at which the surface passes between two voxels."""
    (x, y, z), (u, v, w) = crossing
    a, b = float(values[z, y, x]), float(values[w, v, u])
    t = min(0.999, max(0.001, a / (a - b)))
    if (u, v, w) < (x, y, z):  # the clamp applies to the fraction from the lower voxel
        t = 1 - min(0.999, max(0.001, b / (b - a)))
    return x + t * (u - x), y + t * (v - y), z + t * (w - z)
