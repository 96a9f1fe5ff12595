"""The hash-grid field on ray-coherent samples: samples a second, what share of the machine, and against plain torch."""

import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from benchmarks import peak
from lumigraph.kernels import hashgrid, native, ray_marching, splatting
from lumigraph.kernels.reference import hashgrid as reference

SAMPLES = 1 << 16
ENTRIES = (15, 17, 19)

# Arithmetic of the networks for one sample: an FMA is two. Backward has twice as much, two matrix products a layer;
# that it does the forward pass again, and all of the encoding, counts as nothing.
FLOPS = 2 * hashgrid.MLP_WEIGHTS


def rows(repeats: int = 9) -> Iterator[dict[str, object]]:
    """For each size of table, on one thread and on all of them; against the twin at 2^17."""
    most = splatting.threads()
    xyz, direction = shell(SAMPLES)
    for log2_entries in ENTRIES:
        grid = hashgrid.HashGrid(log2_entries)
        leaves = [grid.init_table().mul_(1e4).requires_grad_(), hashgrid.init_mlp_weights().requires_grad_()]
        for threads in sorted({1, most}):
            splatting.set_threads(threads)
            torch.set_num_threads(1)  # its own would spin on the cores that the kernels need, as in training
            try:
                row = time_field(
                    lambda a, b, grid=grid: hashgrid.query_field(grid, a, b, xyz, direction, a.grad), leaves, repeats
                )
                if log2_entries == 17:
                    torch.set_num_threads(threads)
                    plain = time_field(
                        lambda a, b, grid=grid: reference.query_field(grid.levels, a, b, xyz, direction), leaves, 3
                    )
                    row["times_plain_torch"] = round(plain["both"] / row["both"], 1)
                yield {"case": f"2^{log2_entries}, {threads} threads", "isa": native.isa, **figures(row, threads)}
            finally:
                splatting.set_threads(most)
                torch.set_num_threads(most)


def time_field(field: Callable[[Tensor, Tensor], Tensor], leaves: list[Tensor], repeats: int) -> dict[str, float]:
    """Median seconds of forward and of backward."""
    forward, backward = [], []
    for leaf in leaves:
        leaf.grad = torch.zeros_like(leaf)
    for _ in range(repeats + 1):
        start = time.perf_counter()
        out = field(*leaves)
        between = time.perf_counter()
        out.backward(torch.ones_like(out))
        forward.append(between - start)
        backward.append(time.perf_counter() - between)
    seconds = {"forward": statistics.median(forward[1:]), "backward": statistics.median(backward[1:])}
    return {**seconds, "both": seconds["forward"] + seconds["backward"]}


def figures(row: dict[str, float], threads: int) -> dict[str, object]:
    limit = peak.measure(threads)
    found: dict[str, object] = {f"{key}_ms": round(1e3 * row[key], 2) for key in ("forward", "backward")}
    found["msamples_per_second"] = round(SAMPLES / row["both"] * 1e-6, 2)
    found["of_peak"] = round(3 * FLOPS * SAMPLES / row["both"] * 1e-9 / limit, 3)
    return found | {key: row[key] for key in row if key == "times_plain_torch"}


def shell(samples: int, side: int = 128) -> tuple[Tensor, Tensor]:
    """Positions in the unit cube and directions of rays that look at a thick hollow ball from all around."""
    g = torch.Generator().manual_seed(0)
    at = (torch.arange(side) + 0.5) / side * 2 - 1
    z, y, x = torch.meshgrid(at, at, at, indexing="ij")
    cells = ((x * x + y * y + z * z).sqrt() - 0.66).abs() < 0.12
    grid = ray_marching.OccupancyGrid(cells[None].to(torch.uint8), torch.zeros(3), 1.0)
    rays = samples // 32
    eye = torch.nn.functional.normalize(torch.randn(rays, 3, generator=g), dim=1) * 2.6
    aim = (torch.rand(rays, 3, generator=g) - 0.5) * 1.2
    direction = torch.nn.functional.normalize(aim - eye, dim=1)
    steps = ray_marching.MarchSettings(0.0, 10.0, 2 * 3**0.5 / 1024)
    found = ray_marching.march_rays(grid, steps, eye, direction, torch.rand(rays, generator=g))
    ray = found.ray_indices[:samples]
    points = eye[ray] + found.t[:samples, None] * direction[ray]
    return points * 0.5 + 0.5, direction[ray]
