"""Instant-NGP (Mueller et al. 2022): a hash grid of features and tiny networks, marched through occupied cells.

Training draws random rays: march(occupied cells) -> samples -> field(position, direction) -> light along the ray ->
photometric loss. Every 16 steps the occupancy grid is updated from the field.

Bounded scenes (photos with alpha) fill the unit cube as they are. Unbounded ones are contracted into it: the first
cube keeps half of the unit cube along each axis, everything beyond shares the rest (Barron et al.
2022, eq. 10, in the maximum norm), and the march doubles its cubes and lengthens its steps with distance.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from lumigraph.kernels import hashgrid, ray_marching, volume_rendering
from lumigraph.kernels.adam import Adam
from lumigraph.kernels.operations import has_compiled_kernel
from lumigraph.methods.initialization import Beginning, begin, extent_of, focus_of, free_depths
from lumigraph.methods.memory import fitting
from lumigraph.methods.ray_sampler import Anchors, Batch, Pixels
from lumigraph.methods.train import Budget
from lumigraph.scene.cameras import Cameras, Rays, generate_rays, pixel_grid, project
from lumigraph.scene.capture import Capture
from lumigraph.scene.errors import RunError
from lumigraph.scene.field import Bounds
from lumigraph.scene.images import Image

NAME = "ngp"
DEVICES = ("cpu", "cuda")
RENDERED = 1 << 13  # rays at once
FIRST_SLICE = {"cpu": 16, "cuda": 128}  # samples a ray in the first slice, doubled each time; a GPU waits at each
DARK, DIM = 1e-3, 1e-2  # early-stop transmittance: in rendering, in training
FIELD = ("table", "weights", "cells", "place", "layout")


@dataclass(frozen=True)
class Config:
    """Settings of instant-NGP.

    log2_hashmap_size: log2 of the rows of the hash table a level
    base_resolution: cells along the scene on the coarsest of the 16 levels
    max_resolution: cells along the scene on the finest level
    samples: target number of visible samples a step
    lr: learning rate of Adam
    lr_end: final share of the learning rate
    lr_decay_from: progress at which the learning rate begins to fall
    occupancy_grid: cells of the occupancy grid along each side
    cascades: nested grids, each twice as large as the one before; 0 = 1 for photos with alpha, else enough to hold
        the capture's points, 5 if it has none
    steps_per_diagonal: steps along the diagonal of the first cube; 0 = 512 for photos with alpha, else 256
    occupancy_threshold: density times a step below which a cell is empty
    distortion_weight: weight of the distortion loss (Barron et al. 2022, eq. 15)
    depth_weight: weight of the depth loss at the capture's points
    exposure: learn a gain for each photo
    background: training background of photos with alpha: random for each ray, or white
    seed: random seed
    """

    log2_hashmap_size: Annotated[int, Bounds(4, 24)] = 17
    base_resolution: Annotated[int, Bounds(2, 1024)] = 16
    max_resolution: Annotated[int, Bounds(2, 65536)] = 1024
    samples: Annotated[int, Bounds(256, 4194304)] = 1 << 15
    lr: Annotated[float, Bounds(0, 1)] = 1e-2
    lr_end: Annotated[float, Bounds(0, 1)] = 0.03
    lr_decay_from: Annotated[float, Bounds(0, 1)] = 0.3
    occupancy_grid: Annotated[int, Bounds(4, 512)] = 64
    cascades: Annotated[int, Bounds(0, 12)] = 0
    steps_per_diagonal: Annotated[int, Bounds(0, 65536)] = 0
    occupancy_threshold: Annotated[float, Bounds(0)] = 0.01
    distortion_weight: Annotated[float, Bounds(0)] = 0.0
    depth_weight: Annotated[float, Bounds(0)] = 0.0
    exposure: bool = False
    background: Literal["random", "white"] = "random"
    seed: int = 0

    RENAMED: ClassVar[dict[str, str | None]] = {
        "log2_entries": "log2_hashmap_size",
        "coarsest": "base_resolution",
        "finest": "max_resolution",
        "cells": "occupancy_grid",
        "cubes": "cascades",
        "fineness": "steps_per_diagonal",
        "sparse": "occupancy_threshold",
        "distortion": "distortion_weight",
        "depth": "depth_weight",
        "decay": None,
    }


# ---- the field


class NgpField:
    """table, weights: of kernels.hashgrid; occupancy: where the march takes samples; unit: the length, in world units,
    that densities are per."""

    def __init__(
        self,
        grid: hashgrid.HashGrid,
        table: Tensor,
        weights: Tensor,
        occupancy: ray_marching.OccupancyGrid,
        fineness: int,
        unit: float,
    ) -> None:
        self.grid, self.table, self.weights, self.occupancy = grid, table, weights, occupancy
        self.density_unit = unit
        cubes = len(occupancy.cells)
        self.shortest = 2 * math.sqrt(3) * occupancy.half_extent / fineness
        self.growth = 0.0 if cubes == 1 else 4.0 / fineness
        self.reach = 2 * math.sqrt(3) * occupancy.half_extent * 2 ** (cubes - 1)

    @property
    def box(self) -> Tensor:
        o = self.occupancy
        half = o.half_extent * 2.0 ** (len(o.cells) - 1)
        return torch.stack([o.centre - half, o.centre + half])

    def unit(self, points: Tensor) -> Tensor:
        """(S, 3) world -> the unit cube."""
        p = (points - self.occupancy.centre) / self.occupancy.half_extent
        if len(self.occupancy.cells) == 1:
            return p * 0.5 + 0.5
        reach = p.abs().amax(1, keepdim=True).clamp(min=1)
        return p * ((2 - 1 / reach) / reach) * 0.25 + 0.5

    def samples(self, beams: Rays, jitter: Tensor, near: float = 0.0) -> ray_marching.RaySamples:
        steps = ray_marching.MarchSettings(
            near, ray_marching.MAX_STEPS_PER_RAY * self.shortest, self.shortest, self.growth
        )
        return ray_marching.march_rays(self.occupancy, steps, beams.origins, beams.directions, jitter)

    @torch.no_grad()
    def lit(self, beams: Rays, samples: ray_marching.RaySamples) -> ray_marching.RaySamples:
        """Drop samples that no light reaches: they cost as much and learn nothing."""
        is_lit = torch.zeros(len(samples.t), dtype=torch.bool, device=samples.t.device)
        through = torch.ones_like(beams.origins[:, 0])
        for alive, indices, part in ahead(samples, through, DIM):
            points, _ = self._points(Rays(beams.origins[alive], beams.directions[alive]), part)
            sigma_rgb = torch.zeros(len(indices), 4, device=indices.device)
            sigma_rgb[:, 0] = hashgrid.query_density(self.grid, self.table, self.weights, points)
            length = part.delta / self.density_unit
            light = volume_rendering.composite_rays(sigma_rgb, part.t, length, part.ray_offsets)
            # the light that reaches a sample is its weight over its own alpha
            arriving_weights = light.weights * through[alive][part.ray_indices]
            is_lit[indices] = arriving_weights > DIM * -torch.expm1(-sigma_rgb[:, 0] * length)
            through[alive] *= light.transmittance
        cumulative_count = torch.cat([is_lit.new_zeros(1, dtype=torch.int64), is_lit.cumsum(0)])
        return ray_marching.RaySamples(cumulative_count[samples.ray_offsets], samples.t[is_lit], samples.delta[is_lit])

    def along(self, beams: Rays, samples: ray_marching.RaySamples) -> volume_rendering.CompositedRays:
        """Light along the rays. Differentiable in table and weights."""
        points, direction = self._points(beams, samples)
        seen = hashgrid.query_field(self.grid, self.table, self.weights, points, direction, self.table.grad)
        return volume_rendering.composite_rays(seen, samples.t, samples.delta / self.density_unit, samples.ray_offsets)

    def _points(self, beams: Rays, samples: ray_marching.RaySamples) -> tuple[Tensor, Tensor]:
        """(S, 3) positions of the samples in the unit cube, and their view directions."""
        ray = samples.ray_indices
        direction = beams.directions[ray]
        return self.unit(torch.addcmul(beams.origins[ray], samples.t[:, None], direction)), direction

    @torch.no_grad()
    def seen(self, beams: Rays) -> Tensor:
        """(R, 5) rgb over black, alpha, sum of weight x distance: as `along`, but a ray ends where nothing shines
        through any more."""
        samples = self.samples(beams, torch.full_like(beams.origins[:, 0], 0.5))
        out = beams.origins.new_zeros(len(beams.origins), 5)
        through = torch.ones_like(out[:, 0])
        for alive, _, part in ahead(samples, through, DARK):
            light = self.along(Rays(beams.origins[alive], beams.directions[alive]), part)
            ray_values = torch.cat([light.rgb, 1 - light.transmittance[:, None], light.depth[:, None]], 1)
            out[alive] += through[alive, None] * ray_values
            through[alive] *= light.transmittance
        return out

    @torch.no_grad()
    def render(self, cameras: Cameras, background: Tensor | None = None) -> Image:
        width, height = cameras.size(0)
        torch.set_num_threads(1)  # as in training
        cameras = cameras.to(self.table.device, torch.float32)
        pixels = pixel_grid((width, height)).to(self.table.device).flatten(0, 1)
        parts = []
        for i in range(len(cameras)):
            for piece in torch.split(pixels, RENDERED):
                beams = generate_rays(cameras, torch.full((len(piece),), i, device=piece.device), piece)
                seen = self.seen(beams)
                seen[:, 4] *= beams.directions @ cameras.forwards[i]
                parts.append(seen)
        rgb, alpha, depth = torch.split(torch.cat(parts).view(len(cameras), height, width, 5), [3, 1, 1], -1)
        if background is not None:
            rgb = rgb + (1 - alpha) * background
        return Image(rgb, alpha, depth / alpha.clamp(min=1e-6))

    def state(self) -> dict[str, Tensor]:
        o, level = self.occupancy, self.grid.levels
        fineness = round(2 * math.sqrt(3) * o.half_extent / self.shortest)
        return {
            "table": self.table.detach(),
            "weights": self.weights.detach(),
            "cells": o.cells,
            "place": torch.cat([o.centre.cpu(), torch.tensor([o.half_extent, self.density_unit])]),
            "layout": torch.tensor([self.grid.log2_hashmap_size, int(level[0].scale), int(level[-1].scale), fineness]),
        }


def ahead(
    samples: ray_marching.RaySamples, through: Tensor, dark: float
) -> Iterator[tuple[Tensor, Tensor, ray_marching.RaySamples]]:
    """Goes along the rays slice by slice: the rays (A,) that still let more than `dark` through, which samples come
    next on them, and these packed. The caller lowers `through` (R,) before it asks for more."""
    start, end = samples.ray_offsets[:-1].clone(), samples.ray_offsets[1:]
    slice_ = FIRST_SLICE[through.device.type]
    alive = (start < end).nonzero()[:, 0]
    while len(alive):
        count = (end[alive] - start[alive]).clamp(max=slice_)
        first = torch.cat([count.new_zeros(1), count.cumsum(0)])
        total = int(first[-1])
        indices = torch.arange(total, device=alive.device) + torch.repeat_interleave(
            start[alive] - first[:-1], count, output_size=total
        )
        yield alive, indices, ray_marching.RaySamples(first, samples.t[indices], samples.delta[indices])
        start[alive] += count
        alive = alive[(start[alive] < end[alive]) & (through[alive] > dark)]
        slice_ *= 2


def load(state: dict[str, Tensor]) -> NgpField:
    """Load a field from `NgpField.state`. Raises RunError if tensors are missing or inconsistent."""
    try:
        log2_entries, coarsest, finest, fineness = state["layout"].tolist()
        grid = hashgrid.HashGrid(log2_entries, coarsest, finest)
        table, weights, place = state["table"].float(), state["weights"].float(), state["place"]
        if (
            table.shape != (grid.table_rows, hashgrid.FEATURES_PER_LEVEL)
            or weights.shape != (hashgrid.MLP_WEIGHTS,)
            or fineness < 1
        ):
            raise ValueError("the table or the networks have another shape")
        occupancy = ray_marching.OccupancyGrid(state["cells"], place[:3].to(table), float(place[3]))
        unit = float(place[4]) if len(place) > 4 else 1.0  # runs of earlier versions: densities per world unit
        if not unit > 0:
            raise ValueError("densities are per no length")
        return NgpField(grid, table, weights, occupancy, fineness, unit)
    except (KeyError, ValueError, IndexError) as error:
        raise RunError(f"this is not a field of the method {NAME}: {error}") from error


# ---- occupancy

UPDATE_EVERY, WARM = 16, 256  # steps: between updates; of all cells at first
FADE = 0.95  # decay of a cell's density at each update
PROBED = 1 << 16  # cells an update, of all and again of the occupied ones
CARVED = 30  # photos whose silhouettes cut the first grid
PLACED = 20_000  # points inside the silhouettes, from which the place of the subject follows
SWEPT = 5_000  # points measured in photos that are not cut out, where the capture has none


class Density:
    """Decaying maximum of the density in each cell, (L, G, G, G), which determines the occupied cells."""

    def __init__(self, field: NgpField, sparse: float, generator: torch.Generator) -> None:
        self.values = torch.zeros_like(field.occupancy.cells, dtype=torch.float32)
        self._field, self._sparse, self._generator = field, sparse, generator
        self.possible = field.occupancy.cells.clone()  # not 0: where silhouettes and views leave room

    @torch.no_grad()
    def update(self, everywhere: bool) -> None:
        flat, cells = self.values.view(-1), self._field.occupancy.cells.view(-1)
        indices = possible = self.possible.view(-1).nonzero()[:, 0]
        if not len(possible):
            return
        if not everywhere:
            anywhere = possible[torch.randint(len(possible), (PROBED,), generator=self._generator).to(flat.device)]
            occupied_cells = cells.nonzero()[:, 0]
            again = torch.randint(max(1, len(occupied_cells)), (PROBED,), generator=self._generator).to(flat.device)
            indices = torch.cat([anywhere, occupied_cells[again] if len(occupied_cells) else anywhere])
        flat *= FADE
        for piece in torch.split(indices, 1 << 18):
            density = self._probe(piece)
            flat.scatter_reduce_(0, piece, density, "amax")
        thickness = flat[possible] * (self._field.shortest / self._field.density_unit)
        cells[possible] = (thickness > thickness.mean().clamp(max=self._sparse)).to(cells)

    def _probe(self, indices: Tensor) -> Tensor:
        """(P,) densities at random points of the cells numbered `which`."""
        o, side = self._field.occupancy, self._field.occupancy.cells.shape[1]
        xyz = torch.stack([indices % side, indices // side % side, indices // side**2 % side], 1).float()
        inside = torch.rand(len(indices), 3, generator=self._generator).to(xyz.device)
        half = o.half_extent * 2.0 ** (indices // side**3).float()[:, None]
        points = o.centre + ((xyz + inside) / side * 2 - 1) * half
        f = self._field
        return hashgrid.query_density(f.grid, f.table, f.weights, f.unit(points))


# ---- the training


class NgpTraining:
    """Training of one run. State: field, Adam's moments, densities of the cells, exposures and random generator."""

    def __init__(self, capture: Capture, config: Config, field: NgpField, device: str) -> None:
        self.config, self.field = config, field
        self.generator = torch.Generator().manual_seed(config.seed)
        self.pixels = Pixels(capture, self.generator, device)
        self.cut_out = capture.has_alpha
        self.near = 0.0 if self.cut_out else 0.02 * extent_of(capture.cameras)
        field.table.requires_grad_(), field.weights.requires_grad_()
        self.exposure = torch.zeros(len(capture), 3, device=device).requires_grad_(config.exposure)  # log gains
        parameters = [field.table, field.weights] + ([self.exposure] if config.exposure else [])
        self.adam = Adam(parameters)
        self.density = Density(field, config.occupancy_threshold, self.generator)
        learning_rates = (
            700 if has_compiled_kernel(field.table) else 9000
        )  # bytes a sample takes: fused, or by torch's own operations
        self.samples, self.notes = fitting(config.samples, "samples", learning_rates, device, "set fewer samples")
        self.rays = self.samples // 256
        self.anchors = Anchors(capture, self.generator) if config.depth_weight else None
        # torch has little to do in a step, and its OpenMP threads would spin on the cores that the kernels need
        torch.set_num_threads(1)

    def step(self, i: int, progress: float) -> dict[str, float]:
        c, field = self.config, self.field
        batch = self.pixels.draw(self.rays)
        jitter = torch.rand(len(batch.photo), generator=self.generator).to(batch.photo.device)
        ray_samples = field.samples(batch.rays, jitter, self.near)
        samples = field.lit(batch.rays, ray_samples) if i >= WARM else ray_samples
        light = field.along(batch.rays, samples)
        loss = self._loss(batch, light, samples)
        loss.backward()  # type: ignore[no-untyped-call]
        psnr_estimate = self._found(loss)
        if not math.isfinite(psnr_estimate):
            return {"loss": math.nan}
        late = max(0.0, (progress - c.lr_decay_from) / (1 - c.lr_decay_from)) if c.lr_decay_from < 1 else 0.0
        rate = c.lr * min(1.0, (i + 1) / 50) * c.lr_end**late
        self.adam.step([rate] * len(self.adam.parameters))
        if i % UPDATE_EVERY == UPDATE_EVERY - 1:
            self.density.update(everywhere=i < WARM)
        sample_count = max(1, len(samples.t))
        self.rays = int(min(max(self.rays * min(2.0, self.samples / sample_count), 64), 1 << 16))
        return {"loss": psnr_estimate, "rays": float(len(batch.photo)), "samples": float(sample_count)}

    def _found(self, loss: Tensor) -> float:
        """The loss, or NaN where gradients are no numbers; those of the networks gather what is wrong with any sample.
        A device is asked once."""
        gradients = [p.grad.abs().amax() for p in self.adam.parameters[1:] if p.grad is not None]
        value, *largest = torch.stack([loss.detach(), *gradients]).tolist()
        return value if all(map(math.isfinite, largest)) else math.nan

    def _loss(self, batch: Batch, light: volume_rendering.CompositedRays, samples: ray_marching.RaySamples) -> Tensor:
        c = self.config
        rgb = light.rgb
        if c.exposure:
            rgb = rgb * (self.exposure - self.exposure.mean(0))[batch.photo].exp()
        if self.cut_out and c.background == "white":
            behind = torch.ones_like(rgb)
        else:  # transparency is wrong over an unpredictable colour, so no haze remains
            behind = torch.rand(rgb.shape, generator=self.generator).to(rgb)
        error = rgb + light.transmittance[:, None] * behind - batch.composite_over(behind)
        loss = error.square().mean()
        if c.distortion_weight:
            loss = loss + c.distortion_weight * distortion(light.weights, samples, self.field.reach)
        if self.anchors is not None:
            loss = loss + c.depth_weight * self._anchored(self.anchors)
        return loss

    def _anchored(self, anchors: Anchors) -> Tensor:
        """Mean squared relative depth error of the rays to known points."""
        photo, pixel, distance = anchors.draw(max(1, self.rays // 8))
        batch = self.pixels.through(photo, pixel, torch.zeros(len(photo), 4))
        jitter = torch.rand(len(photo), generator=self.generator).to(batch.photo.device)
        light = self.field.along(batch.rays, self.field.samples(batch.rays, jitter, self.near))
        return ((light.depth / distance.to(light.depth) - 1).square()).mean()

    def state(self) -> dict[str, Tensor]:
        moments = {f"{name}{k}": x for name in ("m", "v") for k, x in enumerate(getattr(self.adam, name))}
        counts = torch.tensor([self.adam.step_count, self.rays])
        return {
            **self.field.state(),
            **moments,
            "density": self.density.values,
            "possible": self.density.possible,
            "exposure": self.exposure.detach(),
            "counts": counts,
            "random": self.generator.get_state(),
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Restore from a checkpoint written by `state`. Raises RunError if it is not a state of this method."""
        try:
            for name in ("m", "v"):
                for k, x in enumerate(getattr(self.adam, name)):
                    x.copy_(state[f"{name}{k}"])
            self.density.values.copy_(state["density"])
            self.density.possible.copy_(state["possible"])
            self.exposure.data.copy_(state["exposure"])
            self.adam.step_count, self.rays = state["counts"].tolist()
            self.generator.set_state(state["random"])
        except (KeyError, ValueError, RuntimeError) as error:
            raise RunError(f"this is not a checkpoint of the method {NAME}: {error}") from error


def distortion(weight: Tensor, samples: ray_marching.RaySamples, reach: float) -> Tensor:
    """Mean over rays of sum_ij w_i w_j |t_i - t_j| + sum_i w_i^2 d_i / 3 (Barron et al. 2022, eq. 15), t in units of
    `reach`. As t grows along a ray, the double sum is 2 sum_i w_i (t_i W_i - M_i) with the sums W of weights and M of
    w t before i."""
    t, d = samples.t.double() / reach, samples.delta / reach
    start = samples.ray_offsets[:-1][samples.ray_indices]

    def before(x: Tensor) -> Tensor:
        total = torch.cat([x.new_zeros(1), x.cumsum(0)])
        return total[:-1] - total[start]

    w = weight.double()
    pairs = 2 * w * (t * before(w) - before(w * t))
    return ((pairs + w.square() * d / 3).sum() / max(1, len(samples.ray_offsets) - 1)).float()


def start(capture: Capture, config: Config, budget: Budget, device: str = "cpu") -> NgpTraining:
    """Start training on `capture` (pinhole cameras). Raises RunError if it has no photos."""
    if not len(capture):
        raise RunError("there are no photos to train with")
    generator = torch.Generator().manual_seed(config.seed)
    beginning = _beginning(capture, generator)
    centre, half = place_of(capture, beginning)
    cubes = config.cascades or cubes_of(capture, beginning, centre, half)
    try:
        grid = hashgrid.HashGrid(config.log2_hashmap_size, config.base_resolution, config.max_resolution)
        cells = torch.ones(
            cubes, config.occupancy_grid, config.occupancy_grid, config.occupancy_grid, dtype=torch.uint8, device=device
        )
        occupancy = ray_marching.OccupancyGrid(cells, centre.to(device), half)
    except ValueError as error:
        raise RunError(str(error)) from error
    if capture.has_alpha:
        occupancy.cells[0] = hull(capture, occupancy, config.occupancy_grid).to(device)
    else:
        occupancy.cells.copy_(visible(capture.cameras, free_depths(capture.cameras, beginning), occupancy))
    table, weights = grid.init_table(generator).to(device), hashgrid.init_mlp_weights(generator).to(device)
    # an untrained density is about 1: per half the first cube, most light comes through what nobody has learned yet
    fineness = config.steps_per_diagonal or (512 if capture.has_alpha else 256)
    field = NgpField(grid, table, weights, occupancy, fineness, half)
    return NgpTraining(capture, config, field, device)


def resume(
    capture: Capture, config: Config, state: dict[str, Tensor], budget: Budget, device: str = "cpu"
) -> NgpTraining:
    """Resume from `state`. Raises RunError if it is not a state of this method for this capture."""
    field = load({name: tensor.to(device) for name, tensor in state.items() if name in FIELD})
    training = NgpTraining(capture, config, field, device)
    training.restore(state)
    return training


def hull(capture: Capture, occupancy: ray_marching.OccupancyGrid, side: int) -> Tensor:
    """(G, G, G) uint8: cells of the first cube that are at least partly within the silhouettes of the photos."""
    at = (torch.arange(side) + 0.5) / side * 2 - 1
    z, y, x = torch.meshgrid(at, at, at, indexing="ij")
    points = torch.stack([x, y, z], -1).view(-1, 3) * occupancy.half_extent + occupancy.centre.cpu()
    radius = occupancy.half_extent / side * math.sqrt(3)
    inside = torch.ones(len(points), dtype=torch.bool)
    for i in range(0, len(capture), max(1, len(capture) // CARVED)):
        camera = capture.cameras[i].to(dtype=torch.float32)
        width, height = camera.size(0)
        left = inside.nonzero()[:, 0]
        pixels, depth = project(camera, points[left])
        reach = radius * float(camera.focal.max()) / depth[0].clamp(min=1e-6)  # pixels, of a cell
        around = int(reach.median()) + 2
        solid = (capture.photo(i)[..., 3] > 0).float()[None, None]
        solid = torch.nn.functional.max_pool2d(solid, 2 * around + 1, 1, around)[0, 0] > 0
        px, py = pixels[0].nan_to_num(-1.0).floor().long().unbind(1)
        in_view = (depth[0] > 0) & (px >= 0) & (py >= 0) & (px < width) & (py < height) & (reach < around)
        empty = in_view & ~solid[py.clamp(0, height - 1), px.clamp(0, width - 1)]
        inside[left[empty]] = False
    return inside.view(side, side, side).to(torch.uint8)


def visible(cameras: Cameras, free: Tensor, occupancy: ray_marching.OccupancyGrid) -> Tensor:
    """(L, G, G, G) uint8: the cells that some photo shows and that are in no photo's free space, the part of its view
    nearer than `free` (N,).

    Density in front of a single camera explains its photo and fogs neighbouring views. Density that no photo shows is
    never trained but visible in held-out views.
    """
    levels, side = occupancy.cells.shape[:2]
    centre, at = occupancy.centre.cpu(), (torch.arange(side) + 0.5) / side * 2 - 1
    z, y, x = torch.meshgrid(at, at, at, indexing="ij")
    unit = torch.stack([x, y, z], -1).view(-1, 3)
    is_shown = torch.zeros(levels, side**3, dtype=torch.bool)
    empty = torch.zeros_like(is_shown)
    for level in range(levels):
        half = occupancy.half_extent * 2.0**level
        radius = half / side * math.sqrt(3)  # of the ball around a cell
        points = unit * half + centre
        for i in range(len(cameras)):
            camera = cameras[i].to(dtype=torch.float32)
            slope = (torch.maximum(camera.centre, camera.sizes - camera.centre) / camera.focal).norm()
            near = (points - camera.positions[0]).norm(dim=1) < float(free[i]) * float(1 + slope)
            rows = (near | ~is_shown[level]).nonzero()[:, 0]
            touches, depth = _touched(camera, points[rows], radius)
            is_shown[level, rows] |= touches & (depth > float(free[i]) - radius)
            empty[level, rows] |= touches & (depth < float(free[i]) - radius)
    return (is_shown & ~empty).view(levels, side, side, side).to(torch.uint8)


def _touched(camera: Cameras, points: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    """(P,) bool: whether balls around `points` reach into the camera's view; (P,) their depths."""
    pose = camera.cam_from_world[0]
    p = points @ pose[:, :3].T + pose[:, 3]
    inside = p[:, 2] > -radius
    for axis in (0, 1):
        low = -camera.centre[0, axis] / camera.focal[0, axis]
        high = (camera.sizes[0, axis] - camera.centre[0, axis]) / camera.focal[0, axis]
        for slope, sign in ((low, 1.0), (high, -1.0)):
            # the distance to the plane through the edge of the photo, positive inside the view
            inside &= sign * (p[:, axis] - slope * p[:, 2]) / (1 + slope**2).sqrt() > -radius
    return inside, p[:, 2]


def _beginning(capture: Capture, generator: torch.Generator) -> Beginning:
    """Points of the scene; none if photos without alpha have no common texture."""
    if capture.has_alpha:
        return begin(capture, PLACED, generator)
    try:
        return begin(capture, SWEPT, generator)
    except RunError:
        return Beginning(torch.zeros(0, 3), torch.zeros(0, 3), is_measured=False)


def place_of(capture: Capture, beginning: Beginning) -> tuple[Tensor, float]:
    """Centre and half the side of the cube that contains the subject."""
    if capture.has_alpha:
        low, high = beginning.xyz.amin(0), beginning.xyz.amax(0)
        return (low + high) / 2, float((high - low).max()) * 0.5 * 1.1
    centre = focus_of(capture.cameras)
    return centre, float((capture.cameras.positions.float() - centre).norm(dim=1).mean()) * 0.5


def cubes_of(capture: Capture, beginning: Beginning, centre: Tensor, half: float) -> int:
    """Number of nested cubes that contain the measured points."""
    if capture.has_alpha:
        return 1
    if not beginning.is_measured:
        return 5
    reach = (beginning.xyz - centre).abs().amax(1) / half
    most = float(reach.kthvalue(max(1, len(reach) * 99 // 100)).values)
    return min(8, max(3, 1 + math.ceil(math.log2(max(1.0, most)))))
