"""Training plan for a budget on this machine: step time, gaussians, image size, looks per photo.

A look is one training step on one photo at full size. A run with few looks leaves regions black or foggy, so image size
and gaussians are chosen to leave enough of them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import torch

from lumigraph.kernels import splatting as kernel

# Seconds of a full-size step on two Zen 4 cores, fitted to runs of 270x480 to 800x800 with 40,000 to 120,000 gaussians:
LOSS_S, PIXEL_S, GAUSSIAN_S = 20e-9, 70e-9, 230e-9  # of a pixel, a pixel that is not transparent, a gaussian
REFERENCE_PROBE_S = 10e-3  # of `_probe` on the machine that these figures come from
PROBE_GAUSSIANS, PROBE_SIDE, PROBE_ROUNDS = 10_000, 256, 9

FEWEST_LOOKS = 12  # for each photo; with fewer, parts of a scene stay unfinished
LEAST_GAUSSIANS = 0.6  # of what the seconds alone would allow; rather than fewer, photos are reduced
MIN_REDUCED_SIDE_PX = 320  # pixels of the longer side, below which photos are not reduced
FULL_SIZE = 0.75  # of a training runs at full size
PIXELS_EACH = 50  # fewer training pixels a gaussian, and gaussians learn single photos by heart
FEWEST, MOST = 5_000, 1_000_000  # gaussians


def relative_speed(device: str) -> float:
    """Current speed of this machine relative to two idle Zen 4 cores; 1 on a GPU, which is not planned.

    Takes about 0.2 s.
    """
    return REFERENCE_PROBE_S / _probe() if device == "cpu" else 1.0


def gaussians_for(seconds: float, photos: int, pixels: float, coverage: float = 1.0) -> int:
    """Gaussians that `seconds` of the reference machine can train well, and that the photos can tell apart.

    pixels: of a photo, on average; coverage: the share of them that is not transparent.
    """
    budget_cap = 14_000 * math.sqrt(seconds * pixels * coverage / 160_000)
    told_apart = photos * pixels * coverage / PIXELS_EACH
    left = (FULL_SIZE * seconds / (FEWEST_LOOKS * photos) - _step_s(pixels, coverage, 0)) / GAUSSIAN_S
    looked_at = max(left, LEAST_GAUSSIANS * budget_cap)
    return int(min(max(min(budget_cap, told_apart, looked_at), FEWEST), MOST))


def looks(seconds: float, photos: int, pixels: float, gaussians: int, coverage: float = 1.0) -> float:
    """Expected steps at full size for each photo in `seconds` of the reference machine."""
    return FULL_SIZE * seconds / _step_s(pixels, coverage, gaussians) / photos


def longest_side(sizes: Sequence[tuple[int, int]], seconds: float, default_side: int) -> int:
    """Pixels of the longer side, at most `default_side`, that give every photo FEWEST_LOOKS in `seconds`.

    MIN_REDUCED_SIDE_PX if no size does. Seconds are those of the reference machine. sizes: (width, height) each.
    """
    longest = max(max(size) for size in sizes)
    side = min(default_side, longest)
    while side > MIN_REDUCED_SIDE_PX:
        pixels = sum(w * h for w, h in sizes) / len(sizes) * (side / longest) ** 2
        if looks(seconds, len(sizes), pixels, gaussians_for(seconds, len(sizes), pixels)) >= FEWEST_LOOKS:
            break
        side = max(MIN_REDUCED_SIDE_PX, int(side * 0.95))
    return side


def _step_s(pixels: float, coverage: float, gaussians: int) -> float:
    return (LOSS_S + PIXEL_S * coverage) * pixels + GAUSSIAN_S * gaussians


def _probe() -> float:
    """Seconds of rendering and differentiating a synthetic cloud of gaussians, the median of a few rounds."""
    generator = torch.Generator().manual_seed(0)
    params, sh_rest = (
        kernel.allocate_rows(PROBE_GAUSSIANS, width) for width in (kernel.PARAM_COLUMNS, kernel.SH_COLUMNS)
    )
    params[:, kernel.MEAN] = torch.randn(PROBE_GAUSSIANS, 3, generator=generator)
    params[:, kernel.LOG_SCALE] = -3.5 + 0.5 * torch.randn(PROBE_GAUSSIANS, 3, generator=generator)
    params[:, kernel.QUAT] = torch.randn(PROBE_GAUSSIANS, 4, generator=generator)
    pose = torch.eye(3, 4)
    pose[2, 3] = 5.0
    side = PROBE_SIDE
    camera = kernel.Camera(pose, (1.1 * side, 1.1 * side), (side / 2, side / 2), (side, side))
    seconds = []
    for _ in range(PROBE_ROUNDS):
        start_time = time.perf_counter()
        rows = params.requires_grad_(), sh_rest.requires_grad_()
        kernel.render(*rows, camera, degree=3)[0].sum().backward()  # type: ignore[no-untyped-call]
        seconds.append(time.perf_counter() - start_time)
    return sorted(seconds)[PROBE_ROUNDS // 2]
