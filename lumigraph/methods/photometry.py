"""Exposure and white balance of each photo, from the colours of points that several photos see."""

from __future__ import annotations

import torch
from torch import Tensor

from lumigraph.scene.cameras import project
from lumigraph.scene.capture import Capture
from lumigraph.scene.images import from_uint8

DARKEST, BRIGHTEST = 0.04, 0.96  # of the colours that are compared; others are clipped or mostly noise
FEWEST_VIEWS = 3  # of a point
FEWEST_POINTS = 50  # in common, for a photo to be compared
ROUNDS = 10
NOTICEABLE = 0.1  # standard deviation of log gains; below it, views interpolate the differences


def log_gains(capture: Capture) -> Tensor | None:
    """(N, 3) logarithms of the gain of each photo relative to the others, of mean 0; None if points are too few.

    A colour c of point p in photo i is modelled as log c = l_p + g_i, fitted by medians in turns (a median polish,
    Tukey 1977), so that highlights and occluded points do not count.
    """
    points = capture.points
    if points is None or points.view_offsets is None or points.view_indices is None:
        return None
    point = torch.repeat_interleave(torch.arange(len(points)), points.view_offsets.diff())
    image = points.view_indices.long()
    colours = torch.full((len(point), 3), torch.nan)
    for i in range(len(capture)):
        rows = (image == i).nonzero()[:, 0]
        colours[rows] = _colours(capture, i, points.xyz[point[rows]])
    usable = ((colours > DARKEST) & (colours < BRIGHTEST)).all(1)
    usable &= torch.bincount(point[usable], minlength=len(points))[point] >= FEWEST_VIEWS
    point, image, logs = point[usable], image[usable], colours[usable].log()
    if int(torch.bincount(image, minlength=len(capture)).min()) < FEWEST_POINTS:
        return None
    gains = torch.zeros(len(capture), 3)
    for _ in range(ROUNDS):
        levels = _medians(logs - gains[image], point, len(points))
        gains = _medians(logs - levels[point], image, len(capture))
        gains = gains - gains.mean(0)
    return gains


def differ(gains: Tensor) -> bool:
    """Whether (N, 3) log gains differ so much that one scene cannot explain all photos."""
    return bool(gains.std(0).mean() > NOTICEABLE)


def _colours(capture: Capture, i: int, xyz: Tensor) -> Tensor:
    """(M, 3) of photo i at the points `xyz` (M, 3), 0..1; NaN outside the image."""
    pixels, depth = project(capture.cameras[i].to(dtype=torch.float32), xyz)
    photo = capture.photo(i)
    x, y = pixels[0].floor().long().unbind(1)
    inside = (depth[0] > 0) & (x >= 0) & (y >= 0) & (x < photo.shape[1]) & (y < photo.shape[0])
    colours = from_uint8(photo[y.clamp(0, photo.shape[0] - 1), x.clamp(0, photo.shape[1] - 1)])
    if photo.shape[-1] == 4:
        inside &= colours[:, 3] > 0.99
    return colours[:, :3].masked_fill(~inside[:, None], torch.nan)


def _medians(values: Tensor, group: Tensor, groups: int) -> Tensor:
    """(groups, C) medians of the rows of `values` (M, C) by `group` (M,); 0 where a group is empty."""
    counts = torch.bincount(group, minlength=groups)
    middle = counts.cumsum(0) - counts + (counts - 1).clamp(min=0) // 2
    result = torch.zeros(groups, values.shape[1])
    for channel in range(values.shape[1]):
        by_value = values[:, channel].argsort()
        sorted_rows = by_value[group[by_value].argsort(stable=True)]
        result[:, channel] = values[sorted_rows[middle.clamp(max=len(group) - 1)], channel]
    return result.masked_fill((counts == 0)[:, None], 0)
