"""3D gaussian splatting (Kerbl et al. 2023), with schedules that fit the budget and a CPU.

Differences from the paper, which pay off for steps of milliseconds and budgets of minutes:
- the resolution grows with progress (a quarter, a half, full size): early steps are 16 times cheaper;
- densification samples gaussians by image error (blending weight x pixel error, summed over views) instead of screen
  gradients, and the count grows geometrically to a cap that the budget can still train;
- opacities decay and faint gaussians are relocated; opacity is never reset;
- photos without alpha are trained over random colours: transparency is wrong everywhere, so no haze remains that
  explains one photo and spoils neighbouring views;
- Adam updates only the gaussians that a view sees.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor

from lumigraph.kernels import splatting as kernel
from lumigraph.methods import photometry, planning, pose_refinement, splat_surface
from lumigraph.methods.initialization import Beginning, begin, extent_of, free_depths, free_radii, neighbour_distance
from lumigraph.methods.memory import available
from lumigraph.methods.pose_refinement import PoseRefinement
from lumigraph.methods.splat_reference import ReferenceField
from lumigraph.methods.train import Budget
from lumigraph.scene.assets import Splats
from lumigraph.scene.cameras import Cameras
from lumigraph.scene.capture import Capture
from lumigraph.scene.errors import RunError
from lumigraph.scene.field import Bounds
from lumigraph.scene.harmonics import C0
from lumigraph.scene.images import Image, area_downscale, composite_over
from lumigraph.scene.poses import matrix_from_quaternion

NAME = "splat"
DEVICES = ("cpu", "cuda")


@dataclass(frozen=True)
class Config:
    """Settings of gaussian splatting. Learning rates are Adam's; those of positions are times the scene's extent.

    cap: maximum number of gaussians; 0 = by budget, machine and photos
    sh_degree: highest degree of the view-dependent colour, 0 to 3; few photos get a lower one
    start_points: initial gaussians if the capture has no points
    lr_mean: learning rate of positions
    lr_mean_end: final share of lr_mean
    lr_scale: learning rate of log scales
    lr_quat: learning rate of rotations
    lr_opacity: learning rate of logit opacities
    lr_colour: learning rate of the plain colour
    lr_sh: learning rate of the view-dependent colour, a share of lr_colour; falls after 60 looks at each photo
    lr_end: final share of the other rates
    lr_decay_from: progress at which the other rates begin to fall
    ssim_weight: weight of 1 - SSIM in the loss; the remainder is L1
    mse_weight: final weight of the squared error, which replaces L1
    densify: score that selects gaussians for densification
    densify_every: steps between densifications
    densify_until: progress at which densification ends
    prune_opacity: gaussians below this opacity are relocated
    opacity_decay: opacity that all gaussians lose at each densification: unneeded gaussians fade and are relocated
    resolution_schedule: progress at which images reach full size; smaller sizes come before
    background: training background of photos with alpha; "random" draws black or white for each channel and step,
        so that alpha is learned too
    random_background: train photos without alpha over a random colour at each step, so that surfaces close
    exposure: learn a gain and a bias for each photo
    auto_exposure: learn them if the colours of points show that exposure or white balance differs between photos
    antialiased: scale opacities by the low-pass filter's area, as Mip-Splatting does
    refine_poses: correct rough camera poses in training, such as those of a phone's tracking
    surface: in the second half, make the gaussians agree on one surface, for better meshes and depth
    seed: random seed
    """

    cap: Annotated[int, Bounds(0, 50000000)] = 0
    sh_degree: Annotated[int, Bounds(0, 3)] = 3
    start_points: Annotated[int, Bounds(1, 10000000)] = 10_000
    lr_mean: Annotated[float, Bounds(0, 1)] = 5e-4
    lr_mean_end: Annotated[float, Bounds(0, 1)] = 0.01
    lr_scale: Annotated[float, Bounds(0, 1)] = 2.5e-2
    lr_quat: Annotated[float, Bounds(0, 1)] = 4e-3
    lr_opacity: Annotated[float, Bounds(0, 1)] = 5e-2
    lr_colour: Annotated[float, Bounds(0, 1)] = 8e-3
    lr_sh: Annotated[float, Bounds(0, 1)] = 0.25
    lr_end: Annotated[float, Bounds(0, 1)] = 0.3
    lr_decay_from: Annotated[float, Bounds(0, 1)] = 0.5
    ssim_weight: Annotated[float, Bounds(0, 1)] = 0.2
    mse_weight: Annotated[float, Bounds(0, 1)] = 0.4
    densify: Literal["error", "gradient", "mixed"] = "error"
    densify_every: Annotated[int, Bounds(1, 1000000)] = 50
    densify_until: Annotated[float, Bounds(0, 1)] = 0.7
    prune_opacity: Annotated[float, Bounds(0, 1)] = 0.01
    opacity_decay: Annotated[float, Bounds(0, 1)] = 0.002
    resolution_schedule: Annotated[float, Bounds(0, 1)] = 0.25
    background: Literal["random", "white", "black"] = "random"
    random_background: bool = True
    exposure: bool = False
    auto_exposure: bool = True
    antialiased: bool = False
    refine_poses: bool = False
    surface: bool = False
    seed: int = 0

    RENAMED: ClassVar[dict[str, str | None]] = {
        "fade": "opacity_decay",
        "coarse": "resolution_schedule",
        "ssim": "ssim_weight",
        "square": "mse_weight",
        "backdrop": "random_background",
    }


# ---- the field


Render = Callable[..., tuple[Tensor, Tensor, Tensor]]


class SplatField:
    """A renderable field of gaussians. `params`, `sh_rest`: rows as in kernels.splat."""

    def __init__(self, params: Tensor, sh_rest: Tensor, degree: int, antialiased: bool = False) -> None:
        self.params, self.sh_rest, self.degree, self.antialiased = params, sh_rest, degree, antialiased

    @property
    def box(self) -> Tensor:
        means = self.params[:, kernel.MEAN]
        return torch.stack([means.amin(0), means.amax(0)]) if len(means) else torch.zeros(2, 3)

    def render(self, cameras: Cameras, background: Tensor | None = None) -> Image:
        rgb, depth, alpha = self._views(kernel.render, cameras, background)
        return Image(rgb, alpha[..., None], (depth / alpha.clamp(min=1e-6))[..., None])

    def render_surface(self, cameras: Cameras) -> Image:
        rgb, depth, alpha = self._views(kernel.render_surface, cameras, None)
        return Image(rgb, alpha[..., None], depth[..., None])

    def _views(self, render: Render, cameras: Cameras, background: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        if cameras.lens != "pinhole":
            raise ValueError("splats are rendered through pinhole cameras")
        views = [
            render(self.params, self.sh_rest, camera_of(cameras, i, self.antialiased), self.degree, background)
            for i in range(len(cameras))
        ]
        rgb, depth, alpha = (torch.stack(parts) for parts in zip(*views, strict=True))
        return rgb, depth, alpha

    def splats(self) -> Splats:
        """The gaussians in file order."""
        p, k = self.params, (self.degree + 1) ** 2
        sh_rest = self.sh_rest[:, : 3 * (k - 1)].reshape(len(p), k - 1, 3)
        sh = torch.cat([p[:, None, kernel.SH_DC], sh_rest], dim=1)
        parts = (p[:, kernel.MEAN], p[:, kernel.LOG_SCALE], p[:, kernel.QUAT], p[:, kernel.LOGIT_OPACITY], sh)
        return Splats(*(part.clone() for part in parts))

    def with_splats(self, splats: Splats) -> SplatField:
        """A field of other gaussians with the same render settings."""
        return from_splats(splats.to(self.params.device), self.antialiased)

    def reference(self) -> ReferenceField:
        return ReferenceField(self.splats(), self.antialiased)

    def state(self) -> dict[str, Tensor]:
        s = self.splats()
        return {
            "means": s.means,
            "log_scales": s.log_scales,
            "quats": s.quats,
            "logit_opacities": s.logit_opacities,
            "sh": s.sh,
            "antialiased": torch.tensor(self.antialiased),
        }


def from_splats(splats: Splats, antialiased: bool = False) -> SplatField:
    """Create a field from gaussians, such as those of a PLY."""
    n, k = len(splats), splats.sh.shape[1]
    device = splats.means.device
    params, sh_rest = (
        kernel.allocate_rows(n, kernel.PARAM_COLUMNS, device),
        kernel.allocate_rows(n, kernel.SH_COLUMNS, device),
    )
    params[:, kernel.MEAN], params[:, kernel.LOG_SCALE] = splats.means, splats.log_scales
    params[:, kernel.QUAT], params[:, kernel.LOGIT_OPACITY] = splats.quats, splats.logit_opacities
    params[:, kernel.SH_DC] = splats.sh[:, 0]
    sh_rest[:, : 3 * (k - 1)] = splats.sh[:, 1:].reshape(n, 3 * (k - 1))
    return SplatField(params, sh_rest, splats.sh_degree, antialiased)


def load(state: dict[str, Tensor]) -> SplatField:
    """Load a field from `SplatField.state`. Raises RunError if tensors are missing or inconsistent."""
    try:
        splats = Splats(state["means"], state["log_scales"], state["quats"], state["logit_opacities"], state["sh"])
        return from_splats(splats, bool(state["antialiased"]))
    except (KeyError, ValueError) as error:
        raise RunError(f"this is not a field of the method {NAME}: {error}") from error


def camera_of(cameras: Cameras, i: int, antialiased: bool = False, near: float = 0.01) -> kernel.Camera:
    fx, fy = cameras.focal[i].tolist()
    cx, cy = cameras.centre[i].tolist()
    return kernel.Camera(cameras[i].cam_from_world[0], (fx, fy), (cx, cy), cameras.size(i), near, antialiased)


# ---- training images


class Pictures:
    """Photos and masks as planes (3, H, W) and (H, W), uint8, at every size of the schedule, the full one last, on the
    device that learns. Photos with alpha are kept over black and over white, (2, 3, H, W).

    Full-size images stay in memory only up to `limit` bytes; beyond that they come from the capture's cache.
    """

    def __init__(self, capture: Capture, coarser: int, device: str = "cpu", limit: int = 1 << 30) -> None:
        self._capture, self._device = capture, device
        sizes = capture.cameras.sizes
        self.cameras = [capture.cameras.resize((sizes >> k).clamp(min=1)) for k in range(coarser, -1, -1)]
        whole = int(sizes.prod(1).sum()) * (6 if capture.has_alpha else 3) <= limit
        self._levels: list[list[Tensor] | None] = []
        self._masks: list[list[Tensor] | None] = []
        for level, cameras in enumerate(self.cameras):
            hold = whole or level < coarser
            self._levels.append([self._planes(i, cameras.size(i)) for i in range(len(capture))] if hold else None)
            has_masks = hold and capture.masks is not None
            self._masks.append([self._mask(i, cameras.size(i)) for i in range(len(capture))] if has_masks else None)

    def covered(self) -> float:
        """Mean alpha of all photos."""
        if not self._capture.has_alpha:
            return 1.0
        coarsest = self._levels[0] or [self._planes(i, self.cameras[0].size(i)) for i in range(len(self._capture))]
        return 1 - sum(float((white.float() - black.float()).mean()) for black, white in coarsest) / 255 / len(coarsest)

    def __call__(self, level: int, i: int, background: Tensor) -> tuple[Tensor, Tensor | None]:
        """The photo over `background` (3,), each channel 0 or 1 where the capture has alpha, and its mask."""
        photos, masks, size = self._levels[level], self._masks[level], self.cameras[level].size(i)
        photo = self._planes(i, size) if photos is None else photos[i]
        if self._capture.has_alpha:
            photo = torch.stack([photo[int(value), channel] for channel, value in enumerate(background)])
        if self._capture.masks is None:
            return photo, None
        return photo, self._mask(i, size) if masks is None else masks[i]

    def _planes(self, i: int, size: tuple[int, int]) -> Tensor:
        photo = self._capture.photo(i)
        if photo.shape[-1] == 3:
            return area_downscale(photo, size).permute(2, 0, 1).contiguous().to(self._device)
        over = [composite_over(photo, torch.full((3,), value)) for value in (0.0, 1.0)]  # before pixels are averaged
        small = [(area_downscale(photo, size) * 255 + 0.5).to(torch.uint8).permute(2, 0, 1) for photo in over]
        return torch.stack(small).to(self._device)

    def _mask(self, i: int, size: tuple[int, int]) -> Tensor:
        assert self._capture.masks is not None
        return area_downscale(self._capture.masks[i], size)[..., 0].contiguous().to(self._device)


# ---- the training


CLEARED, FADED = 8, -10.0  # cameras a turn, logit opacity
LARGEST_SCALE = 0.3  # standard deviation of a gaussian, relative to its distance to any camera
WHITE_SHARE = 0.7  # of the channels of random backgrounds; evaluation is over white by convention
STEPS_PER_SECOND = 90  # on the reference machine
SH_LOOKS = 60  # at each photo; from then on, view-dependent colour that learns at this rate learns them by heart
EXPOSURE_DIFFERS = (
    "exposure or white balance differs between the photos: a gain is learned for each, and held-out photos are also "
    "evaluated after a gain of their own"
)
POSES_REFINED = (
    "the training cameras were corrected by {degrees:.2f} degrees and {shift:.2f}% of the scene's extent (medians); "
    "held-out photos are also evaluated after an alignment of their own cameras"
)
POSES_KEPT = (
    "the training cameras stay as given: alignment would move the median photo by {flow:.2f} pixels only; held-out "
    "photos are also evaluated after an alignment of their own cameras"
)
TOO_FEW_LOOKS = (
    "each photo was trained on {looks:.0f} times and {fewest} are the fewest for a whole scene: parts may be black or "
    "foggy; train for longer, or with smaller photos"
)
VIEWS_PER_DEGREE = (0, 8, 24, 40)  # photos from which degree 0, 1, 2, 3 is not learned by heart


def auto_cap(budget: Budget, photos: int, pixels: float, coverage: float, device: str) -> int:
    """Number of gaussians that the budget can train well on this machine and the photos can resolve.

    pixels: of a photo, on average; coverage: the share that is not transparent. A budget of steps does not depend
    on the machine.
    """
    if budget.seconds is None:
        return planning.gaussians_for((budget.steps or 1) / STEPS_PER_SECOND, photos, pixels, coverage)
    return planning.gaussians_for(budget.seconds * planning.relative_speed(device), photos, pixels, coverage)


def longest_side(capture: Capture, budget: Budget, default_side: int, device: str) -> int:
    """Pixels of the longer side, at most `default_side`, that leave each photo enough steps within the budget."""
    if budget.seconds is None:
        return default_side
    sizes = [capture.cameras.size(i) for i in range(len(capture))]
    return planning.longest_side(sizes, budget.seconds * planning.relative_speed(device), default_side)


class SplatTraining:
    """Training of one run. The state is the rows, their moments and scores, the exposures and the random generator.

    free: (2, N) free-space depths in front of the cameras and radii around them.
    """

    def __init__(self, capture: Capture, config: Config, budget: Budget, free: Tensor, device: str = "cpu") -> None:
        self.config, self.device = config, device
        self.generator = torch.Generator().manual_seed(config.seed)
        self.has_alpha = capture.has_alpha
        self.notes: list[str] = []
        longest = int(capture.cameras.sizes.max())
        coarser = min(3, max(0, int(math.log2(longest / 90)))) if config.resolution_schedule > 0 else 0
        limit = 1 << 30 if device == "cpu" else int(available(device) / 3)
        self.pictures = Pictures(capture, coarser, device, limit)
        self.cameras, self.free = capture.cameras.to(dtype=torch.float32), free.clone()
        self.views = self._views()
        self.extent = extent_of(capture.cameras)
        pixels = float(capture.cameras.sizes.double().prod(1).mean())
        self.cap = config.cap or auto_cap(budget, len(capture), pixels, self.pictures.covered(), device)
        told_apart = [d for d, views in enumerate(VIEWS_PER_DEGREE) if len(capture) >= views]
        self.highest_degree = min(config.sh_degree, max(told_apart))
        self.rows = kernel.Trainer(self.cap + 1, device)  # and a spare one, where a GPU writes what is of no use
        self.weights = kernel.PhotometricLoss()
        self.degree = 0
        self.order: list[int] = []
        gains = photometry.log_gains(capture) if config.exposure or config.auto_exposure else None
        self.learns_exposure = config.exposure or (gains is not None and photometry.differ(gains))
        self.exposure = torch.zeros(len(capture), 6)  # log gain, bias
        if self.learns_exposure and gains is not None:
            self.exposure[:, :3] = gains
            self.notes += [EXPOSURE_DIFFERS]
        self.refinement = pose_refinement.PoseRefinement(capture.cameras) if config.refine_poses else None
        self.started = self.steps = 0
        # torch has little to do in a step, and its OpenMP threads would spin on the cores that the kernels need
        torch.set_num_threads(1)

    @property
    def refined_poses(self) -> Tensor | None:
        """(N, 3, 4) float64 world_from_cam of the training cameras as corrected; None if they stay as given."""
        return None if self.refinement is None else self.refinement.world_from_cam

    @property
    def field(self) -> SplatField:
        n = self.rows.count
        return SplatField(self.rows.params[:n], self.rows.sh_rest[:n], self.degree, self.config.antialiased)

    def seed(self, beginning: Beginning) -> None:
        """Round gaussians at its points, as large as the gaps between them."""
        points, colours, _ = beginning
        if len(points) > self.cap // 2:
            rows = torch.randperm(len(points), generator=self.generator)[: self.cap // 2]
            points, colours = points[rows], colours[rows]
        p = self.rows.params[: len(points)]
        p[:, kernel.MEAN] = points.to(p.device)
        size = (0.65 * neighbour_distance(points)).clamp(1e-4 * self.extent, 0.15 * self.extent)
        p[:, kernel.LOG_SCALE] = size.log()[:, None].to(p.device)
        p[:, kernel.QUAT] = torch.tensor([1.0, 0, 0, 0], device=p.device)
        p[:, kernel.LOGIT_OPACITY] = math.log(0.3 / 0.7)
        p[:, kernel.SH_DC] = ((colours - 0.5) / C0).to(p.device)
        self.rows.count = self.started = len(points)

    def step(self, i: int, progress: float) -> dict[str, float]:
        c = self.config
        if not self.order:
            self.order = torch.randperm(len(self.views[0]), generator=self.generator).tolist()
        view, self.steps = self.order.pop(), i + 1
        level = self._level(progress)
        self.degree = min(self.highest_degree, sum(progress >= at for at in (0.15, 0.3, 0.5)))
        self._schedule(i, progress)
        behind = self._background()
        photo, mask = self.pictures(level, view, behind)
        if self.learns_exposure:
            gain, bias = self.exposure[view, :3].exp().tolist(), self.exposure[view, 3:].tolist()
            self.weights.gain, self.weights.bias = gain, bias
        view_args = (self.views[level][view], self.degree, behind.tolist(), photo, mask, self.weights)
        stats = self.rows.step(
            *view_args, synchronize=self.learns_exposure
        )  # else a GPU tells of a step before, and nobody waits
        if self.learns_exposure:
            self._expose(view, stats, progress)
        if self.refinement is not None and self.refinement.is_due(progress):
            self._refine_poses(self.refinement)
        if c.surface and splat_surface.is_due(i, progress):
            self._surface_step(max(0, level - 1))
        if i % c.densify_every == c.densify_every - 1:
            self._clear(i // c.densify_every)
            if progress < c.densify_until:
                self._densify(progress)
        return {
            "loss": stats["l1"],
            "gaussians": float(self.rows.count),
            "size": float(2.0 ** (level + 1 - len(self.views))),
        }

    def closing_notes(self) -> list[str]:
        """Warnings for the user when the budget is spent."""
        notes = []
        if self.refinement is not None and self.refinement.rounds:
            degrees, shift = self.refinement.corrections()
            text = POSES_REFINED if self.refinement.is_changed else POSES_KEPT
            notes += [text.format(degrees=degrees, shift=100 * shift / self.extent, flow=self.refinement.flow)]
        looks = self.steps / len(self.cameras)
        if looks < planning.FEWEST_LOOKS:
            notes += [TOO_FEW_LOOKS.format(looks=looks, fewest=planning.FEWEST_LOOKS)]
        return notes

    def _background(self) -> Tensor:
        if not self.has_alpha:
            return torch.rand(3, generator=self.generator) if self.config.random_background else torch.zeros(3)
        if self.config.background == "random":
            return (torch.rand(3, generator=self.generator) < WHITE_SHARE).float()
        return torch.full((3,), float(self.config.background == "white"))

    def _level(self, progress: float) -> int:
        """Image sizes double until `coarse`: full from there, a half from 1/6 of it, and so on."""
        last, level, at = len(self.views) - 1, len(self.views) - 1, self.config.resolution_schedule
        while level > 0 and progress < at:
            level, at = level - 1, at / 6
        return min(level, last)

    def _schedule(self, i: int, progress: float) -> None:
        c, o = self.config, self.rows.optimizer
        mean = c.lr_mean * self.extent * c.lr_mean_end**progress
        late = max(0.0, (progress - c.lr_decay_from) / (1 - c.lr_decay_from)) if c.lr_decay_from < 1 else 0.0
        f = c.lr_end**late
        colour = c.lr_colour * f
        o.lr = [mean] * 3 + [c.lr_scale * f] * 3 + [c.lr_quat * f] * 4 + [c.lr_opacity * f] + [colour] * 3 + [0.0, 0.0]
        o.lr_sh = colour * c.lr_sh * min(1.0, SH_LOOKS * len(self.cameras) / (i + 1))
        self.weights.ssim = c.ssim_weight
        self.weights.square = c.mse_weight * late

    def _refine_poses(self, refinement: PoseRefinement) -> None:
        """Run one round of pose refinement at full size."""
        cameras = self.pictures.cameras[-1].to(self.device, torch.float32)

        def photo(i: int) -> tuple[Tensor, Tensor | None]:
            planes, mask = self.pictures(-1, i, torch.zeros(3))
            return planes.float().mean(0) / 255, mask

        refinement.refine(self.field, cameras, photo)
        if refinement.is_changed:
            self._look_from(refinement)

    def _look_from(self, refinement: PoseRefinement) -> None:
        """Use the refined cameras in training."""
        world_from_cam = refinement.world_from_cam
        self.cameras = dataclasses.replace(self.cameras, world_from_cam=world_from_cam.float())
        self.pictures.cameras = [
            dataclasses.replace(cameras, world_from_cam=world_from_cam.to(cameras.world_from_cam))
            for cameras in self.pictures.cameras
        ]
        self.views = self._views()

    def _views(self) -> list[list[kernel.Camera]]:
        antialiased = self.config.antialiased
        return [[camera_of(cameras, i, antialiased) for i in range(len(cameras))] for cameras in self.pictures.cameras]

    def _surface_step(self, level: int) -> None:
        """On any photo, at half the size of the last training step: normals need no more."""
        view = int(torch.randint(len(self.views[level]), (), generator=self.generator))
        photo, _ = self.pictures(level, view, torch.ones(3))
        camera = self.pictures.cameras[level][view].to(dtype=torch.float32)
        splat_surface.surface_step(self.rows, self.views[level][view], camera, photo)

    def _expose(self, view: int, stats: dict[str, Any], progress: float) -> None:
        """Update a photo's log gain and bias by gradient descent; they stay small and centred."""
        gain = torch.tensor(stats["gain"]) * self.exposure[view, :3].exp()
        rate = 0.02 * (1 - progress)
        self.exposure[view, :3] -= rate * gain
        self.exposure[view, 3:] -= 0.2 * rate * torch.tensor(stats["bias"])
        self.exposure -= self.exposure.mean(0)

    @torch.no_grad()
    def _clear(self, turn: int) -> None:
        """Fade gaussians in the free space of cameras, which neighbouring views would show as floaters.

        Limit how large a gaussian is as a camera sees it, whether the camera looks there or not. The affine projection
        of larger ones is wrong, and each viewer draws them in its own way.

        A few cameras each turn: nothing moves far in between.
        """
        scales = self.rows.params[: self.rows.count, kernel.LOG_SCALE]
        logits = self.rows.params[: self.rows.count, kernel.LOGIT_OPACITY]
        means = self.rows.params[: self.rows.count, kernel.MEAN]
        for k in range(CLEARED):
            i = (turn * CLEARED + k) % len(self.cameras)
            cam_from_world = self.cameras[i].cam_from_world[0].to(means.device)
            x, y, z = (means @ cam_from_world[:, :3].T + cam_from_world[:, 3]).T
            slope = (0.5 * self.cameras.sizes[i] / self.cameras.focal[i]).tolist()
            distance = torch.stack([x, y, z]).norm(dim=0)
            scales.copy_(torch.minimum(scales, (LARGEST_SCALE * distance).log()[:, None]))
            depth, radius = self.free[:, i].tolist()
            near = (z > 0) & (z < depth) & (x.abs() < slope[0] * z) & (y.abs() < slope[1] * z)
            logits.masked_fill_(near | (distance < radius), FADED)

    @torch.no_grad()
    def _densify(self, progress: float) -> None:
        """Split gaussians with a high score into new rows or rows of faded gaussians."""
        c, rows, n = self.config, self.rows, self.rows.count
        p, score = rows.params[:n], rows.score[:n]
        p[:, kernel.LOGIT_OPACITY] = torch.logit(
            (torch.sigmoid(p[:, kernel.LOGIT_OPACITY]) - c.opacity_decay).clamp(1e-3, 0.999)
        )
        dead = (p[:, kernel.LOGIT_OPACITY] < math.log(c.prune_opacity / (1 - c.prune_opacity))) | ~p[
            :, :14
        ].isfinite().all(1)
        share = min(1.0, progress / (0.85 * c.densify_until))
        target = min(self.cap, max(n, int(self.started * (self.cap / self.started) ** share)))
        weight = {"error": score[:, 0], "gradient": score[:, 1], "mixed": (score[:, 0] * score[:, 1]).sqrt()}[c.densify]
        weight = weight.nan_to_num(0.0, 0.0, 0.0).clamp(min=0).masked_fill(dead, 0)
        if self.device == "cpu":
            self._grow(weight, dead, target)
        else:
            self._grow_without_waiting(weight, dead, target)
        rows.score.zero_()

    def _grow(self, weight: Tensor, dead: Tensor, target: int) -> None:
        n = len(dead)
        slots = torch.cat([dead.nonzero()[:, 0], torch.arange(n, target)])
        k = min(len(slots), int((weight > 0).sum()))
        if k:
            noise = gumbel(torch.rand(n, generator=self.generator))
            self._split((weight.clamp(min=1e-30).log() + noise).topk(k).indices, slots[:k])
            self.rows.count = max(n, int(slots[:k].max()) + 1)

    def _grow_without_waiting(self, weight: Tensor, dead: Tensor, target: int) -> None:
        """The same, but nothing that a GPU computes decides how much there is to do: room for a quarter of the rows to
        be recycled, and pairs of nothing and nowhere, the spare row behind all, where fewer are."""
        n, spare, device = len(dead), self.cap, dead.device
        self.rows.params[n:target, kernel.LOGIT_OPACITY] = FADED  # where nobody is born they are recycled next
        relocated_rows = dead.int().argsort(descending=True, stable=True)
        turn = torch.arange(min(n, target - n + n // 4), device=device)
        born = turn - dead.sum()
        slots = torch.where(born < 0, relocated_rows[turn], n + born)
        chance = torch.Generator(device=device).manual_seed(int(torch.randint(1 << 62, (), generator=self.generator)))
        noise = gumbel(torch.rand(n, generator=chance, device=device))
        parents = (weight.clamp(min=1e-30).log() + noise).topk(len(turn)).indices
        real = (slots < target) & (weight[parents] > 0)
        self._split(torch.where(real, parents, spare), torch.where(real, slots, spare))
        self.rows.count = max(n, target)

    def _split(self, parents: Tensor, slots: Tensor) -> None:
        """Split each parent in two along its longest axis, half a deviation apart, smaller along it and fainter."""
        rows = self.rows
        p = rows.params[parents]
        scale = p[:, kernel.LOG_SCALE].exp()
        axis = scale.argmax(1)
        i = torch.arange(len(p), device=p.device)
        offset = matrix_from_quaternion(p[:, kernel.QUAT])[i, :, axis] * (0.5 * scale[i, axis])[:, None]
        opacity = (torch.sigmoid(p[:, kernel.LOGIT_OPACITY]) * 0.85).clamp(0.005, 0.98)
        p[:, kernel.LOGIT_OPACITY] = torch.logit(opacity)
        p[:, kernel.LOG_SCALE] += math.log(0.9)
        p[i, 3 + axis] += math.log(0.6 / 0.9)
        p[:, kernel.STEP_COUNT] = 0
        child = p.clone()
        p[:, kernel.MEAN] += offset
        child[:, kernel.MEAN] -= offset
        rows.params[parents], rows.params[slots] = p, child
        rows.sh_rest[slots] = rows.sh_rest[parents]
        for moments in (rows.m, rows.v, rows.sh_m, rows.sh_v):
            moments[parents] = 0
            moments[slots] = 0

    def state(self) -> dict[str, Tensor]:
        n = self.rows.count
        rows = {name: getattr(self.rows, name)[:n].clone() for name in ROWS}
        counts = torch.tensor([self.cap, self.started, self.degree])
        order = torch.tensor(self.order, dtype=torch.int64)
        return {
            **rows,
            "exposure": self.exposure,
            "free": self.free,
            "counts": counts,
            "order": order,
            "random": self.generator.get_state(),
            **({} if self.refinement is None else self.refinement.state()),
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Restore from a checkpoint written by `state`. Raises RunError if it is not a state of this method."""
        try:
            self.cap, self.started, self.degree = state["counts"].tolist()
            n = len(state["params"])
            self.cap = max(self.cap, n)
            self.rows = kernel.Trainer(self.cap + 1, self.device)
            for name in ROWS:
                getattr(self.rows, name)[:n] = state[name].to(self.device)
            self.rows.count = n
            self.exposure = state["exposure"].clone()
            self.order = state["order"].tolist()
            self.generator.set_state(state["random"])
            if self.refinement is not None:
                self.refinement.restore(state)
                if self.refinement.is_changed:
                    self._look_from(self.refinement)
        except (KeyError, ValueError, RuntimeError) as error:
            raise RunError(f"this is not a checkpoint of the method {NAME}: {error}") from error


ROWS = ("params", "sh_rest", "m", "v", "sh_m", "sh_v", "score")


def gumbel(uniform: Tensor) -> Tensor:
    """The k largest of log w + this are k drawn without replacement by weight (Efraimidis and Spirakis 2006)."""
    return -torch.log(-torch.log(uniform.clamp(1e-12, 1 - 1e-7)))


def start(capture: Capture, config: Config, budget: Budget, device: str = "cpu") -> SplatTraining:
    """Start training on `capture` (pinhole cameras). Raises RunError if it has no photos."""
    if not len(capture):
        raise RunError("there are no photos to train with")
    beginning = begin(capture, config.start_points, torch.Generator().manual_seed(config.seed))
    free = torch.stack([free_depths(capture.cameras, beginning), free_radii(capture.cameras, beginning)])
    training = SplatTraining(capture, config, budget, free, device)
    training.seed(beginning)
    return training


def resume(
    capture: Capture, config: Config, state: dict[str, Tensor], budget: Budget, device: str = "cpu"
) -> SplatTraining:
    """Resume from `state`. Raises RunError if it is not a state of this method for this capture."""
    free = state.get("free")
    if free is not None and free.dim() == 1:  # a checkpoint of an earlier version, with depths alone
        free = torch.stack([free, torch.zeros_like(free)])
    if free is None or free.shape != (2, len(capture)):
        raise RunError(f"this is not a checkpoint of the method {NAME} for these photos")
    training = SplatTraining(capture, config, budget, free, device)
    training.restore(state)
    return training
