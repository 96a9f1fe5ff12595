"""NeRF against the paper's equations, written out a second time in float64 and NumPy, sample by sample."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lumigraph.methods import nerf
from lumigraph.methods.train import Budget
from lumigraph.scene.assets import Points
from lumigraph.scene.cameras import Rays
from tests.methods.scene import ball

Array = NDArray[np.float64]


def gamma(p: Array, count: int) -> Array:
    """Eq. 4, in the order of the package: for each frequency all sines, then all cosines."""
    return np.concatenate([f(2.0**k * math.pi * p) for k in range(count) for f in (np.sin, np.cos)])


def network(w: dict[str, Array], x: Array, d: Array, shape: tuple[int, int, int, int]) -> tuple[float, Array]:
    """Figure 7 of the paper."""
    frequencies, view_frequencies, _, depth = shape
    position = gamma(x, frequencies)
    h = position
    for k in range(depth):
        if k == depth // 2 + 1:
            h = np.concatenate([h, position])
        h = np.maximum(w[f"layers.{k}.weight"] @ h + w[f"layers.{k}.bias"], 0)
    sigma = max(0.0, float((w["density.weight"] @ h + w["density.bias"])[0]))
    feature = w["feature.weight"] @ h + w["feature.bias"]
    v = np.concatenate([feature, gamma(d, view_frequencies)])
    v = np.maximum(w["view.weight"] @ v + w["view.bias"], 0)
    return sigma, 1 / (1 + np.exp(-(w["colour.weight"] @ v + w["colour.bias"])))


def render(w: Any, shape: Any, o: Array, d: Array, ts: Array, far: float, weights_only: bool = False) -> Any:
    """Eq. 3."""
    colour, through, weights = np.zeros(3), 1.0, []
    for i, t in enumerate(ts):
        sigma, c = network(w, o + t * d, d, shape)
        delta = (ts[i + 1] if i + 1 < len(ts) else far) - t
        alpha = 1 - math.exp(-sigma * delta)
        weights.append(through * alpha)
        colour = colour + through * alpha * c
        through *= 1 - alpha
    return np.array(weights) if weights_only else colour


def resampled(weights: Array, count: int) -> Array:
    """Section 5.2: the inverse of the distribution function at the middles of even steps, as shares of near..far."""
    p = weights + 1e-5
    cdf = np.concatenate([[0.0], np.cumsum(p / p.sum())])
    u = (np.arange(count) + 0.5) / count
    return np.interp(u, cdf, np.arange(len(cdf)) / len(weights))


def test_the_whole_recipe_is_the_papers() -> None:
    shape, counts = (10, 4, 48, 8), (12, 20)
    torch.manual_seed(0)
    networks = torch.nn.ModuleDict({name: nerf.Network(*shape) for name in ("coarse", "fine")}).double()
    with torch.no_grad():
        for one in networks.values():
            one.density.bias += 1.5
            one.density.weight *= 8
    space = nerf.Space("box", torch.tensor([0.1, 0.2, -0.1]).double(), 1.5, torch.eye(3, 4).double(), torch.ones(2))
    field = nerf.NerfField(networks, space, counts, None)
    g = torch.Generator().manual_seed(1)
    origins = torch.nn.functional.normalize(torch.randn(6, 3, generator=g), dim=1).double() * 4
    aims = 0.5 * torch.randn(6, 3, generator=g).double()
    directions = torch.nn.functional.normalize(aims - origins, dim=1)
    with torch.no_grad():
        coarse, fine, far = field.along(Rays(origins, directions))
    brightest = 0.0
    for r in range(6):
        o, d = (origins[r] - space.centre).numpy() / 1.5, directions[r].numpy()
        b = float(o @ d)
        root = math.sqrt(max(0.0, b * b - o @ o + 1))
        near, end = -b - root, -b + root
        assert float(far[r]) == pytest.approx(end, rel=1e-9)
        w = {name: {k: v.numpy() for k, v in networks[name].state_dict().items()} for name in ("coarse", "fine")}
        s = (np.arange(counts[0]) + 0.5) / counts[0]
        first = near + (end - near) * s
        weights = render(w["coarse"], shape, o, d, first, end, weights_only=True)
        assert np.abs(coarse.weights[r].numpy() - weights).max() < 1e-9
        both = np.sort(np.concatenate([s, resampled(weights, counts[1])]))
        colour = render(w["fine"], shape, o, d, near + (end - near) * both, end)
        assert np.abs(fine.rgb[r].numpy() - colour).max() < 1e-7
        brightest = max(brightest, float(colour.max()))
    assert brightest > 0.05


def test_single_precision_is_within_1e_5_of_the_equations() -> None:
    torch.manual_seed(0)
    network_ = nerf.Network(10, 4, 64, 8)
    x, d = torch.rand(50, 3) * 2 - 1, torch.nn.functional.normalize(torch.randn(50, 3), dim=1)
    with torch.no_grad():
        got = network_(x, d).numpy()
    w = {k: v.double().numpy() for k, v in network_.state_dict().items()}
    for i in range(50):
        sigma, c = network(w, x[i].double().numpy(), d[i].double().numpy(), network_.shape)
        assert np.abs(got[i] - np.concatenate([[sigma], c])).max() < 1e-5


def test_checkpointing_changes_no_gradient() -> None:
    capture = ball().split()[0]
    gradients = []
    for checkpoint in (False, True):
        config = nerf.Config(
            width=32, depth=4, coarse_samples=8, fine_samples=8, rays=64, checkpoint=checkpoint, chunk_size=100
        )
        training = nerf.start(capture, config, Budget(steps=1))
        training.step(0, 0.0)
        gradients.append([p.grad.clone() for p in training.field.networks.parameters()])
    for kept, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(kept, recomputed, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("kind", ["box", "ndc", "contracted"])
def test_positions_at_t_lie_on_the_ray(kind: str) -> None:
    """Going into a space and coming back out by `distance` is where the ray really is."""
    frame = torch.eye(3, 4)
    space = nerf.Space(kind, torch.tensor([0.0, 0, 3]), 1.2, frame, torch.tensor([0.5, 0.4]))
    origins = torch.tensor([[0.1, -0.2, 0.0], [0.3, 0.1, -0.2]])
    directions = torch.nn.functional.normalize(torch.tensor([[0.05, 0.1, 1.0], [-0.1, 0.0, 1.0]]), dim=1)
    beams = Rays(origins, directions)
    entered, near, far = space.enter(beams)
    t = space.t_of(torch.tensor([[0.3, 0.7]] * 2), near, far)
    seen = space.positions(entered, t)
    for k in range(2):
        world = origins + space.distance(beams, t[:, k])[:, None] * directions
        if kind == "ndc":  # appendix C, eq. 25 with the near plane at 1.2
            expected = torch.cat([world[:, :2] / world[:, 2:] / space.slope, 1 - 2 * 1.2 / world[:, 2:]], 1)
        else:
            expected = (world - space.centre) / 1.2
            if kind == "contracted":  # Barron et al. 2022, eq. 10, halved into the unit ball
                r = expected.norm(dim=1, keepdim=True)
                expected = torch.where(r > 1, (2 - 1 / r) * expected / r, expected) / 2
        torch.testing.assert_close(seen[:, k], expected, rtol=1e-4, atol=1e-5)
    assert seen.abs().max() <= 1.0001


def test_a_space_is_chosen_by_the_photos() -> None:
    generator = torch.Generator().manual_seed(0)
    assert nerf.space_of(ball(), "auto", generator).kind == "box"
    assert nerf.space_of(ball(alpha=False), "auto", generator).kind == "contracted"


def test_contracted_rays_begin_at_the_free_depth() -> None:
    """Measured points at 3 before the nearest camera: nothing is sampled in the nearer half of the way."""
    capture = ball(8, alpha=False)
    radius = float(capture.cameras.positions.norm(dim=1).mean())
    points = torch.nn.functional.normalize(torch.randn(4000, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    measured = dataclasses.replace(capture, points=Points(points))
    space = nerf.space_of(measured, "contracted", torch.Generator().manual_seed(0))
    nearest = float(capture.cameras.positions.norm(dim=1).min()) - 1
    assert space.near * radius == pytest.approx(0.5 * nearest, rel=0.05)
    field = nerf.start(
        measured, nerf.Config(width=16, depth=2, coarse_samples=4, fine_samples=4, rays=8), Budget(steps=1)
    ).field
    assert nerf.load(field.state()).space.near == pytest.approx(space.near)
    state = field.state() | {"place": field.state()["place"][:18]}  # of a version without it
    assert nerf.load(state).space.near == nerf.NEAR
