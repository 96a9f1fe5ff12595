"""NeRF (Mildenhall et al. 2020) as published, in plain torch: a reference to read next to the paper.

A scene is a function (position x, direction d) -> (density sigma, colour c), a network F behind a positional encoding

    gamma(p) = (sin(2^0 pi p), cos(2^0 pi p), .., sin(2^(L-1) pi p), cos(2^(L-1) pi p))               (eq. 4)

with L = 10 for positions within -1..1 and L = 4 for directions. The colour of a pixel is the light along its ray r(t):

    C(r) = sum_i T_i (1 - exp(-sigma_i delta_i)) c_i,   T_i = exp(-sum_{j<i} sigma_j delta_j)         (eq. 3)

with delta_i the distance between neighbouring samples t_i within t_n..t_f. Those are drawn twice: one from each of
N_c even bins (eq. 2) for a coarse network, then N_f more by the inverse of the distribution function of its weights
(section 5.2) for a fine network, which sees all N_c + N_f. The loss is the squared error of both colours (eq. 6).

Where t lies depends on the space: a box (cut-out photos: t along the ray, between the faces of the subject's ball), NDC
(forward-facing photos, appendix C: t is linear in inverse depth), or contracted (everything else: t linear in inverse
distance, positions squeezed into a ball of radius 2, Barron et al. 2022, eq. 10).
"""

from __future__ import annotations

import dataclasses
import math
import os
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lumigraph.methods.initialization import begin, extent_of, focus_of, free_depths
from lumigraph.methods.memory import fitting
from lumigraph.methods.ray_sampler import Pixels
from lumigraph.methods.train import Budget
from lumigraph.scene.cameras import Cameras, Rays, generate_rays, pixel_grid
from lumigraph.scene.capture import Capture
from lumigraph.scene.errors import RunError
from lumigraph.scene.field import Bounds
from lumigraph.scene.images import Image

NAME = "nerf"
DEVICES = ("cpu", "cuda")
SPACES = ("box", "ndc", "contracted")
RENDERED = 1 << 12  # rays at once


@dataclass(frozen=True)
class Config:
    """Settings of NeRF. 0 selects the paper's value on a GPU and a faster value on a CPU.

    frequencies: L of the encoding of positions
    view_frequencies: L of the encoding of directions
    width: width of the network layers; 0 = 256 or 64
    depth: layers before the density; a skip connection adds the encoded position after the middle one
    coarse_samples: samples a ray of the coarse network; 0 = 64 or 32
    fine_samples: additional samples of the fine network; 0 = 128 or 32
    rays: rays a step; 0 = 4096 or 512
    lr: learning rate of Adam; 0 = 5e-4 or 2e-3
    lr_end: final share of the learning rate, with exponential decay
    space: box, ndc or contracted; auto depends on the photos
    background: background colour; learned = one trained colour; auto = white for photos with alpha, else black
    checkpoint: recompute activations in the backward pass instead of keeping them: less memory, more time
    chunk_size: samples a network call, when activations are recomputed and in rendering
    seed: random seed
    """

    frequencies: Annotated[int, Bounds(0, 32)] = 10
    view_frequencies: Annotated[int, Bounds(0, 16)] = 4
    width: Annotated[int, Bounds(0, 4096)] = 0
    depth: Annotated[int, Bounds(1, 64)] = 8
    coarse_samples: Annotated[int, Bounds(0, 4096)] = 0
    fine_samples: Annotated[int, Bounds(0, 4096)] = 0
    rays: Annotated[int, Bounds(0, 1048576)] = 0
    lr: Annotated[float, Bounds(0, 1)] = 0.0
    lr_end: Annotated[float, Bounds(0, 1)] = 0.1
    space: Literal["auto", "box", "ndc", "contracted"] = "auto"
    background: Literal["auto", "white", "black", "learned"] = "auto"
    checkpoint: bool = False
    chunk_size: Annotated[int, Bounds(1, 16777216)] = 1 << 13
    seed: int = 0

    RENAMED: ClassVar[dict[str, str | None]] = {
        "coarse": "coarse_samples",
        "fine": "fine_samples",
        "piece": "chunk_size",
    }


# ---- the function


def encode(p: Tensor, frequencies: int) -> Tensor:
    """(..., D) -> (..., 2 D L), eq. 4: for each k the sines of all D, then the cosines."""
    phases = [math.pi * 2.0**k * p for k in range(frequencies)]
    return torch.cat([wave(x) for x in phases for wave in (torch.sin, torch.cos)], -1)


class Network(nn.Module):
    """F of figure 7: `depth` layers, a skip connection after the middle one, density, then view-dependent colour."""

    def __init__(self, frequencies: int, view_frequencies: int, width: int, depth: int) -> None:
        super().__init__()
        self.shape = (frequencies, view_frequencies, width, depth)
        self.frequencies, self.view_frequencies, self.middle = frequencies, view_frequencies, depth // 2
        position, view = 6 * frequencies, 6 * view_frequencies
        ins = [position] + [width + (position if k == self.middle + 1 else 0) for k in range(1, depth)]
        self.layers = nn.ModuleList(nn.Linear(n, width) for n in ins)
        self.density, self.feature = nn.Linear(width, 1), nn.Linear(width, width)
        self.view, self.colour = nn.Linear(width + view, width // 2), nn.Linear(width // 2, 3)

    def forward(self, x: Tensor, d: Tensor) -> Tensor:
        """(S, 3) positions within -1..1 and unit directions -> (S, 4) density, red, green, blue."""
        position = encode(x, self.frequencies)
        h = position
        for k, layer in enumerate(self.layers):
            h = torch.relu(layer(torch.cat([h, position], -1) if k == self.middle + 1 else h))
        sigma = torch.relu(self.density(h))
        view_input = torch.cat([self.feature(h), encode(d, self.view_frequencies)], -1)
        return torch.cat([sigma, torch.sigmoid(self.colour(torch.relu(self.view(view_input))))], -1)


# ---- rays: samples and light


def stratified(rays: int, count: int, jitter: Tensor | None, like: Tensor) -> Tensor:
    """(rays, count) samples in 0..1, one in each of `count` even bins (eq. 2); at bin centres if jitter is None."""
    at = torch.arange(count, dtype=like.dtype, device=like.device).expand(rays, count)
    return (at + (0.5 if jitter is None else jitter)) / count


def inverse_cdf(weights: Tensor, u: Tensor) -> Tensor:
    """(R, F) in 0..1: inverse CDF at u (R, F) of a density that is constant in N even bins, with `weights` (R, N)."""
    pdf = weights + 1e-5  # an empty ray is sampled evenly
    cdf = torch.cumsum(pdf / pdf.sum(1, keepdim=True), 1)
    cdf = torch.cat([torch.zeros_like(cdf[:, :1]), cdf], 1)
    above = torch.searchsorted(cdf, u.contiguous(), right=True).clamp(1, weights.shape[1])
    low, high = cdf.gather(1, above - 1), cdf.gather(1, above)
    return (above - 1 + ((u - low) / (high - low).clamp(min=1e-8)).clamp(0, 1)) / weights.shape[1]


class Seen(NamedTuple):
    rgb: Tensor  # (R, 3) over black
    alpha: Tensor  # (R,)
    t: Tensor  # (R,) sum of weight x t
    weights: Tensor  # (R, N)


def light(sigma_rgb: Tensor, t: Tensor, far: Tensor) -> Seen:
    """Eq. 3 for samples (R, N, 4) at t (R, N), which grows along a ray; the last one reaches to far (R,)."""
    delta = torch.cat([t[:, 1:], far[:, None]], 1) - t
    optical_depth = sigma_rgb[..., 0] * delta
    before = torch.cumsum(optical_depth, 1) - optical_depth
    weights = torch.exp(-before) * (1 - torch.exp(-optical_depth))
    rgb = (weights[..., None] * sigma_rgb[..., 1:]).sum(1)
    return Seen(rgb, weights.sum(1), (weights * t).sum(1), weights)


# ---- spaces

NEAR, FAR = 0.05, 100.0  # of contracted rays, in radii; NEAR where no depth is measured


@dataclass(frozen=True)
class Space:
    """Parametrization of t and positions.

    centre (3,), radius: of the subject. near: t_n of contracted rays. For NDC: frame (3, 4), cam_from_world of the
    reference view; slope (2,), half its width and height per depth; radius, its near plane.
    """

    kind: str
    centre: Tensor
    radius: float
    frame: Tensor
    slope: Tensor
    near: float = NEAR

    def enter(self, beams: Rays) -> tuple[Rays, Tensor, Tensor]:
        """Rays in network coordinates, and t_n and t_f (R,)."""
        o, d = (beams.origins - self.centre) / self.radius, beams.directions
        ones = torch.ones_like(o[:, 0])
        if self.kind == "contracted":
            return Rays(o, d), self.near * ones, FAR * ones
        if self.kind == "box":
            along = -(o * d).sum(1)
            half = (1 - (o + along[:, None] * d).square().sum(1)).clamp(min=0).sqrt()
            near = (along - half).clamp(min=0)
            return Rays(o, d), near, torch.maximum(along + half, near)
        z, dz = self._depths(beams)
        p = beams.origins @ self.frame[:2, :3].T + self.frame[:2, 3]
        slope = d @ self.frame[:2, :3].T / dz[:, None]
        flat = (p + (self.radius - z)[:, None] * slope) / self.radius  # on the near plane
        origins = torch.cat([flat / self.slope, -ones[:, None]], 1)
        return Rays(origins, torch.cat([(slope - flat) / self.slope, 2 * ones[:, None]], 1)), 0 * ones, ones

    def t_of(self, s: Tensor, near: Tensor, far: Tensor) -> Tensor:
        """(R, N) t at the shares s (R, N), 0..1, of the way from t_n to t_f (R,)."""
        if self.kind == "contracted":
            return 1 / ((1 - s) / near[:, None] + s / far[:, None])
        return near[:, None] + (far - near)[:, None] * s

    def positions(self, space_rays: Rays, t: Tensor) -> Tensor:
        """(R, N, 3) within -1..1 at t (R, N)."""
        p = space_rays.origins[:, None] + t[..., None] * space_rays.directions[:, None]
        if self.kind == "contracted":
            r = p.norm(dim=-1, keepdim=True).clamp(min=1)
            p = p * ((2 - 1 / r) / r) / 2
        return p

    def distance(self, beams: Rays, t: Tensor) -> Tensor:
        """(R,) world units along `beams`, rays before `enter`, at t (R,)."""
        if self.kind != "ndc":
            return t * self.radius
        z, dz = self._depths(beams)
        return (self.radius / (1 - t.clamp(max=0.9999)) - z) / dz

    def _depths(self, beams: Rays) -> tuple[Tensor, Tensor]:
        """(R,) origins and directions of the rays projected on the axis of the NDC view."""
        axis = self.frame[2]
        return beams.origins @ axis[:3] + axis[3], (beams.directions @ axis[:3]).clamp(min=1e-3)

    def to(self, device: torch.device | str) -> Space:
        return dataclasses.replace(
            self, centre=self.centre.to(device), frame=self.frame.to(device), slope=self.slope.to(device)
        )


def space_of(capture: Capture, kind: str, generator: torch.Generator) -> Space:
    """Choose the space of a capture; `kind` auto depends on its photos."""
    cameras = capture.cameras.to(dtype=torch.float32)
    forward = torch.nn.functional.normalize(cameras.forwards.mean(0), dim=0)
    ahead = bool((cameras.forwards @ forward > math.cos(math.radians(40))).all())
    if kind == "auto":
        kind = "box" if capture.has_alpha else "ndc" if ahead and _facing(cameras, forward) else "contracted"
    middle = cameras[int((cameras.positions - cameras.positions.mean(0)).norm(dim=1).argmin())]
    frame = middle.cam_from_world[0]
    slope = 0.5 * cameras.sizes.float().amax(0) / cameras.focal.amin(0)
    centre = focus_of(cameras)
    if kind == "box":
        xyz = begin(capture, 20_000, generator).xyz
        centre = (xyz.amin(0) + xyz.amax(0)) / 2
        return Space(kind, centre, 1.05 * float((xyz - centre).norm(dim=1).max()), frame, slope)
    if kind == "ndc":
        depths = begin(capture, 5_000, generator).xyz @ frame[2, :3] + frame[2, 3]
        near = 0.8 * float(depths[depths > 0].quantile(0.005)) if (depths > 0).any() else extent_of(cameras)
        return Space(kind, centre, near, frame, slope)
    radius = float((cameras.positions - centre).norm(dim=1).mean())
    return Space(kind, centre, radius, frame, slope, _near(capture, radius, generator))


def _near(capture: Capture, radius: float, generator: torch.Generator) -> float:
    """t_n of contracted rays: density nearer than the free depths explains one photo and fogs neighbouring views."""
    try:
        beginning = begin(capture, 5_000, generator)
    except RunError:  # photos without common texture are trained anyway
        return NEAR
    if not beginning.is_measured:
        return NEAR
    return max(NEAR, min(0.5, float(free_depths(capture.cameras, beginning).min()) / radius))


def _facing(cameras: Cameras, forward: Tensor) -> bool:
    """Whether the cameras are side by side rather than behind each other, as appendix C requires."""
    offsets = cameras.positions - cameras.positions.mean(0)
    return float((offsets @ forward).abs().max()) < 0.5 * float(offsets.norm(dim=1).max())


# ---- the field


class NerfField:
    """Two networks in a space; background (3,) is a logit colour, or None for the caller's background."""

    def __init__(self, networks: nn.ModuleDict, space: Space, samples: tuple[int, int], background: Tensor | None):
        self.networks, self.space, self.samples, self.background = networks, space, samples, background
        self.piece, self.recompute = 1 << 13, False

    @property
    def box(self) -> Tensor:
        return torch.stack([self.space.centre - self.space.radius, self.space.centre + self.space.radius])

    def along(self, beams: Rays, generator: torch.Generator | None = None) -> tuple[Seen, Seen, Tensor]:
        """(coarse, fine) light along R rays, and t_f; with a generator at random samples, else at bin centres."""
        rays_, near, far = self.space.enter(beams)
        n, (first, second) = len(near), self.samples

        def random(count: int) -> Tensor | None:
            return None if generator is None else torch.rand(n, count, generator=generator).to(near)

        s = stratified(n, first, random(first), near)
        t = self.space.t_of(s, near, far)
        coarse = light(self._network("coarse", rays_, beams.directions, t), t, far)
        u = stratified(n, second, random(second), near)
        s = torch.cat([s, inverse_cdf(coarse.weights.detach(), u)], 1).sort(1).values
        t = self.space.t_of(s, near, far)
        return coarse, light(self._network("fine", rays_, beams.directions, t), t, far), far

    def _network(self, name: str, space_rays: Rays, directions: Tensor, t: Tensor) -> Tensor:
        """(R, N, 4) density and colour, in chunks if activations are not kept."""
        network = self.networks[name]
        x = self.space.positions(space_rays, t).flatten(0, 1)
        d = directions[:, None].expand(*t.shape, 3).flatten(0, 1)
        if not self.recompute and torch.is_grad_enabled():
            return network(x, d).view(*t.shape, 4)  # type: ignore[no-any-return]
        pieces = zip(torch.split(x, self.piece), torch.split(d, self.piece), strict=True)
        if torch.is_grad_enabled():
            out = [checkpoint(network, *piece, use_reentrant=False) for piece in pieces]
        else:
            out = [network(*piece) for piece in pieces]
        return torch.cat(out).view(*t.shape, 4)

    @torch.no_grad()
    def render(self, cameras: Cameras, background: Tensor | None = None) -> Image:
        device = self.space.centre.device
        torch.set_num_threads(os.cpu_count() or 1)  # another method may have limited torch's threads
        cameras = cameras.to(device, torch.float32)
        width, height = cameras.size(0)
        pixels = pixel_grid((width, height)).flatten(0, 1).to(device)
        parts = []
        for i in range(len(cameras)):
            for piece in torch.split(pixels, RENDERED):
                beams = generate_rays(cameras, torch.full((len(piece),), i, device=device), piece)
                _, image, _ = self.along(beams)
                z = self.space.distance(beams, image.t / image.alpha.clamp(min=1e-6)) * (
                    beams.directions @ cameras.forwards[i]
                )
                parts.append(torch.cat([image.rgb, image.alpha[:, None], z[:, None]], 1))
        planes = torch.cat(parts).view(len(cameras), height, width, 5)
        rgb, alpha, depth = torch.split(planes, [3, 1, 1], -1)
        if self.background is not None:
            rgb, alpha = rgb + (1 - alpha) * torch.sigmoid(self.background), torch.ones_like(alpha)
        elif background is not None:
            rgb = rgb + (1 - alpha) * background
        return Image(rgb, alpha, depth)

    def state(self) -> dict[str, Tensor]:
        s = self.space
        place = torch.cat(
            [s.centre.cpu(), torch.tensor([s.radius]), s.frame.cpu().flatten(), s.slope.cpu(), torch.tensor([s.near])]
        )
        state = {f"networks.{name}": x.detach() for name, x in self.networks.state_dict().items()}
        network = cast(Network, self.networks["fine"])
        layout = torch.tensor([*network.shape, *self.samples, SPACES.index(s.kind)])
        state |= {"place": place, "layout": layout}
        if self.background is not None:
            state["background"] = self.background.detach()
        return state


def load(state: dict[str, Tensor]) -> NerfField:
    """Load a field from `NerfField.state`. Raises RunError if tensors are missing or inconsistent."""
    try:
        *shape, first, second, kind = state["layout"].tolist()
        if not all(0 < n <= 4096 for n in (*shape, first, second)):
            raise ValueError("its layout is not one of a network")
        place = state["place"].float()
        centre, radius, frame, slope = torch.split(place[:18], [3, 1, 12, 2])
        near = float(place[18]) if len(place) > 18 else NEAR  # runs of earlier versions
        networks = nn.ModuleDict({name: Network(*shape) for name in ("coarse", "fine")}).to(place.device)
        prefix = "networks."
        networks.load_state_dict({k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)})
        space = Space(SPACES[kind], centre, float(radius), frame.view(3, 4), slope, near)
        return NerfField(networks, space, (first, second), state.get("background"))
    except (KeyError, ValueError, IndexError, RuntimeError) as error:
        raise RunError(f"this is not a field of the method {NAME}: {error}") from error


# ---- the training


class NerfTraining:
    """Training of one run. The state is the field, Adam's moments and the random generator."""

    def __init__(self, capture: Capture, config: Config, field: NerfField, device: str) -> None:
        self.config, self.field = config, field
        field.piece, field.recompute = config.chunk_size, config.checkpoint
        gpu = device != "cpu"
        self.lr = config.lr or (5e-4 if gpu else 2e-3)
        remedy = "set checkpoint, or fewer rays or samples"
        self.rays = config.rays or (4096 if gpu else 512)
        self.rays, self.notes = fitting(self.rays, "rays", self._bytes_each(), device, remedy)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.pixels = Pixels(capture, self.generator, device)
        parameters: list[Tensor] = list(field.networks.parameters())
        if field.background is not None:
            parameters.append(field.background.requires_grad_())
        self.adam = torch.optim.Adam(parameters, lr=self.lr, fused=True)
        white = config.background == "white" or (config.background == "auto" and capture.has_alpha)
        self.behind = torch.full((3,), float(white), device=device)
        torch.set_num_threads(os.cpu_count() or 1)

    def _bytes_each(self) -> float:
        """Estimated bytes of the activations of one ray: the outputs of all layers.

        At 512 rays of the sizes in the paper the estimate is 1.46 GiB; 1.48 were measured.
        """
        _, _, width, depth = cast(Network, self.field.networks["fine"]).shape
        coarse, fine = self.field.samples
        samples = 2 * coarse + fine
        activation_bytes = 4 * (width * (depth + 3) + 12 * sum(cast(Network, self.field.networks["fine"]).shape[:2]))
        if self.config.checkpoint:  # activations of one chunk, and inputs and outputs of every sample
            return 4 * 20 * samples + activation_bytes * min(self.config.chunk_size, self.rays * samples) / self.rays
        return float(activation_bytes * samples)

    def step(self, i: int, progress: float) -> dict[str, float]:
        for group in self.adam.param_groups:
            group["lr"] = self.lr * self.config.lr_end**progress
        batch = self.pixels.draw(self.rays)
        behind = self.behind if self.field.background is None else torch.sigmoid(self.field.background)
        target = batch.composite_over(behind.detach())
        coarse, fine, _ = self.field.along(batch.rays, self.generator)
        losses = [
            (render.rgb + (1 - render.alpha)[:, None] * behind - target).square().mean() for render in (coarse, fine)
        ]
        self.adam.zero_grad()
        (losses[0] + losses[1]).backward()  # type: ignore[no-untyped-call]
        gradients = [p.grad for group in self.adam.param_groups for p in group["params"] if p.grad is not None]
        if not torch.stack([g.isfinite().all() for g in gradients]).all():  # one synchronization
            return {"loss": math.nan}
        self.adam.step()
        return {"loss": float(losses[1].detach()), "rays": float(len(target))}

    def state(self) -> dict[str, Tensor]:
        state = {**self.field.state(), "random": self.generator.get_state()}
        for k, moments in self.adam.state_dict()["state"].items():
            state |= {f"adam.{k}.{name}": torch.as_tensor(x) for name, x in moments.items()}
        return state

    def restore(self, state: dict[str, Tensor]) -> None:
        """Restore from a checkpoint written by `state`. Raises RunError if it is not a state of this method."""
        try:
            moments: dict[int, dict[str, Tensor]] = {}
            for name, x in state.items():
                if name.startswith("adam."):
                    _, k, layer_part = name.split(".")
                    moments.setdefault(int(k), {})[layer_part] = x
            self.adam.load_state_dict({"state": moments, "param_groups": self.adam.state_dict()["param_groups"]})
            self.generator.set_state(state["random"])
        except (KeyError, ValueError, RuntimeError) as error:
            raise RunError(f"this is not a checkpoint of the method {NAME}: {error}") from error


def start(capture: Capture, config: Config, budget: Budget, device: str = "cpu") -> NerfTraining:
    """Start training on `capture` (pinhole cameras). Raises RunError if it has no photos."""
    if not len(capture):
        raise RunError("there are no photos to train with")
    gpu = device != "cpu"
    torch.manual_seed(config.seed)
    width = config.width or (256 if gpu else 64)
    samples = (config.coarse_samples or (64 if gpu else 32), config.fine_samples or (128 if gpu else 32))
    shape = (config.frequencies, config.view_frequencies, width, config.depth)
    if not all(0 < n <= 4096 for n in (*shape, *samples)):
        raise RunError("frequencies, width, depth and samples of NeRF are 1 to 4096")
    networks = nn.ModuleDict({name: Network(*shape) for name in ("coarse", "fine")}).to(device)
    space = space_of(capture, config.space, torch.Generator().manual_seed(config.seed)).to(device)
    background = torch.zeros(3, device=device) if config.background == "learned" else None
    return NerfTraining(capture, config, NerfField(networks, space, samples, background), device)


def resume(
    capture: Capture, config: Config, state: dict[str, Tensor], budget: Budget, device: str = "cpu"
) -> NerfTraining:
    """Resume from `state`. Raises RunError if it is not a state of this method for this capture."""
    field = load({name: x.to(device) for name, x in state.items() if not name.startswith("adam.") and name != "random"})
    training = NerfTraining(capture, config, field, device)
    training.restore(state)
    return training
