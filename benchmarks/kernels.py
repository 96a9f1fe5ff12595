"""Times of each stage of splatting one view, forward and backward, and the share of peak arithmetic that they reach."""

import statistics
from collections import defaultdict
from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks import peak
from benchmarks.scenes import Scene, blob, pack
from lumigraph.kernels import native, splatting
from lumigraph.kernels.reference import splatting as reference

CASES = (("50k@512 SH 3", 50_000, 512), ("200k@1024 SH 3", 200_000, 1024))
FORWARD, BACKWARD = ("project", "bin", "composite"), ("composite_backward", "project_backward")

# Arithmetic of one evaluated pair of gaussian and pixel in the inner loops of csrc/composite.cpp, counted by hand: an
# FMA is two, the exponential 11, a division one, comparisons and conversions nothing.
FLOPS = {"composite": 29, "composite_backward": 52}


def rows(repeats: int = 9) -> Iterator[dict[str, object]]:
    """Yield a row for each scene, on one thread and on all threads."""
    max_threads = splatting.threads()
    for name, count, width in CASES:
        scene = blob(count, (width, width))
        pairs = contributing_pairs(scene)
        for threads in sorted({1, max_threads}):
            splatting.set_threads(threads)
            try:
                yield {"case": f"{name}, {threads} threads", "isa": native.isa, **time(scene, pairs, threads, repeats)}
            finally:
                splatting.set_threads(max_threads)


def time(scene: Scene, pairs: int, threads: int, repeats: int) -> dict[str, object]:
    """Return medians in ms, billions of evaluated pairs (`lanes`) per second, and their arithmetic / FMA peak.

    `useful` is the share of lanes that contribute to the image.
    """
    params, sh_rest = pack(scene)
    camera = splatting.Camera(scene.world_to_cam, scene.focal, scene.centre, scene.size)
    seconds = defaultdict(list)
    for _ in range(repeats):
        for stage, value in splatting.profile(params, sh_rest, camera, degree=3).items():
            seconds[stage].append(value)
    median = {stage: statistics.median(values) for stage, values in seconds.items()}
    entries, lanes = int(median.pop("tile_intersections")), int(median.pop("evaluated_pairs"))
    limit = peak.measure(threads)
    result: dict[str, object] = {f"{stage}_ms": round(1e3 * value, 2) for stage, value in median.items()}
    result["forward_ms"] = round(1e3 * sum(median[stage] for stage in FORWARD), 2)
    result["backward_ms"] = round(1e3 * sum(median[stage] for stage in BACKWARD), 2)
    result |= {"entries": entries, "lanes": lanes, "useful": round(pairs / lanes, 3)}
    for stage, flops in FLOPS.items():
        rate = lanes / median[stage] * 1e-9
        result |= {f"{stage}_glanes": round(rate, 2), f"{stage}_of_peak": round(rate * flops / limit, 3)}
    return result


def contributing_pairs(scene: Scene, tile: int = 32) -> int:
    """Count the pairs of gaussian and pixel that contribute: visible, and before the early stop of the pixel.

    All renderers must evaluate these pairs; their count does not depend on tiles or vectors.
    """
    splats = reference.project(*scene[:-1])
    order = torch.argsort(splats.depths, stable=True)
    means, conics, opacities = splats.means[order], splats.conics[order], splats.opacities[order]
    a, b, c = conics.unbind(-1)
    level = 2 * (opacities / reference.ALPHA_MIN).log().clamp_min(0)  # of d' conic d, where alpha is ALPHA_MIN
    reach = torch.stack([c, a], -1).mul((level / (a * c - b * b))[:, None]).sqrt()
    low, high = means - reach, means + reach
    total = 0
    for y in range(0, scene.size[1], tile):
        row = ((high[:, 1] > y) & (low[:, 1] < y + tile)).nonzero()[:, 0]
        for x in range(0, scene.size[0], tile):
            in_tile = row[(high[row, 0] > x) & (low[row, 0] < x + tile)]
            width, height = min(tile, scene.size[0] - x), min(tile, scene.size[1] - y)
            total += _live_pairs(
                means[in_tile] - torch.tensor([x, y]), conics[in_tile], opacities[in_tile], width, height
            )
    return total


def _live_pairs(means: Tensor, conics: Tensor, opacities: Tensor, width: int, height: int) -> int:
    xs, ys = torch.meshgrid(torch.arange(width) + 0.5, torch.arange(height) + 0.5, indexing="xy")
    dx, dy = xs.flatten() - means[:, 0:1], ys.flatten() - means[:, 1:2]
    a, b, c = conics.T[:, :, None]
    alpha = opacities[:, None] * torch.exp(-0.5 * (a * dx * dx + c * dy * dy) - b * dx * dy)
    alpha = torch.where(alpha >= reference.ALPHA_MIN, alpha.clamp_max(reference.ALPHA_MAX), 0)
    after = torch.cumprod(1 - alpha, 0)
    before = torch.cat([torch.ones_like(after[:1]), after[:-1]])
    return int(((alpha > 0) & (before > reference.MIN_TRANSMITTANCE)).sum())
