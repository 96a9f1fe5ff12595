"""What every method promises, shown by each: it learns, it goes on as if never stopped, it can be saved and loaded."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lumigraph.methods import nerf, ngp, splat
from lumigraph.methods.train import Budget, evaluate, train
from lumigraph.scene.capture import Capture
from lumigraph.scene.errors import RunError
from lumigraph.scene.surface import normals_from_depth
from lumigraph.wire.events import Metrics
from tests.methods.scene import ball

SMALL: dict[str, tuple[Any, Any]] = {
    "splat": (splat, splat.Config(cap=2000, start_points=500, resolution_schedule=0.0)),
    "ngp": (
        ngp,
        ngp.Config(log2_hashmap_size=12, max_resolution=64, samples=1 << 12, occupancy_grid=32, steps_per_diagonal=128),
    ),
    "nerf": (
        nerf,
        nerf.Config(frequencies=4, width=48, depth=4, coarse_samples=24, fine_samples=16, rays=256, lr=5e-3),
    ),
}
STEPS = {"splat": 150, "ngp": 600, "nerf": 500}
methods = pytest.mark.parametrize("name", SMALL)


@pytest.fixture(scope="module")
def capture() -> Capture:
    return ball()


def psnr(field: Any, capture: Capture) -> float:
    events = evaluate(field, capture)
    while True:
        try:
            next(events)
        except StopIteration as end:
            return sum(float(view["psnr"]) for view in end.value) / len(end.value)


@pytest.fixture(scope="module")
def learned(capture: Capture) -> dict[str, Any]:
    found = {}
    for name, (method, config) in SMALL.items():
        budget = Budget(steps=STEPS[name])
        training = method.start(capture.split()[0], config, budget)
        for i in range(STEPS[name]):
            training.step(i, i / STEPS[name])
        found[name] = training
    return found


@methods
def test_it_learns_what_a_ball_looks_like_from_elsewhere(name: str, capture: Capture, learned: dict[str, Any]) -> None:
    assert psnr(learned[name].field, capture.split()[1]) > 22


@methods
def test_depth_alpha_and_normals_are_those_of_the_ball(name: str, capture: Capture, learned: dict[str, Any]) -> None:
    camera = capture.cameras[0]
    image = learned[name].field.render(camera)
    middle = (slice(10, 14), slice(10, 14))
    assert image.alpha[0, *middle].min() > 0.85
    assert image.alpha[0, 0, 0] < 0.15
    distance = camera.positions[0].norm()
    assert image.depth[0, *middle].mean() == pytest.approx(float(distance) - 1, abs=0.4)
    normal = normals_from_depth(image.depth, camera)[0, *middle].mean((0, 1))
    assert torch.dot(normal, camera.positions[0] / distance) > 0.8


@methods
def test_a_loaded_field_renders_the_same_picture(name: str, capture: Capture, learned: dict[str, Any]) -> None:
    field = learned[name].field
    again = SMALL[name][0].load({key: x.clone() for key, x in field.state().items()})
    assert torch.equal(again.render(capture.cameras[1]).rgb, field.render(capture.cameras[1]).rgb)
    assert torch.equal(again.box, field.box)


@methods
def test_going_on_equals_never_having_stopped(name: str, capture: Capture) -> None:
    method, config = SMALL[name]
    photos, budget = capture.split()[0], Budget(steps=40)
    whole = method.start(photos, config, budget)
    for i in range(40):
        if i == 20:
            half = {key: x.clone() for key, x in whole.state().items()}
        whole.step(i, i / 40)
    rest = method.resume(photos, config, half, budget)
    for i in range(20, 40):
        rest.step(i, i / 40)
    for key, x in whole.field.state().items():
        assert torch.equal(x, rest.field.state()[key]), key


@methods
def test_a_state_of_something_else_is_refused(name: str, capture: Capture, learned: dict[str, Any]) -> None:
    method, config = SMALL[name]
    other = learned["ngp" if name != "ngp" else "nerf"].state()
    with pytest.raises(RunError, match=f"of the method {name}"):
        method.load(other)
    with pytest.raises(RunError, match=f"of the method {name}"):
        method.resume(capture.split()[0], config, other, Budget(steps=1))


@pytest.mark.parametrize("name", ["ngp", "nerf"])
def test_a_loss_that_is_no_number_ends_the_training_with_what_was_good(name: str, capture: Capture) -> None:
    method, config = SMALL[name]
    training = method.start(capture.split()[0], config, Budget(steps=30))
    saved: list[dict[str, torch.Tensor]] = []

    def save(training: Any, step: int, seconds: float) -> None:
        saved.append({key: x.clone() for key, x in training.field.state().items()})

    step = training.step

    def poisoned(i: int, progress: float) -> dict[str, float]:
        if i == 5:
            training.pixels._pixels = torch.full_like(training.pixels._pixels, torch.nan, dtype=torch.float32)
        return step(i, progress)

    training.step = poisoned
    with pytest.raises(RunError, match="not a number after 5 steps"):
        for event in train(training, capture.split()[1], Budget(steps=30), look_every=1e9, save=save):
            assert isinstance(event, Metrics) or event
    assert saved
    assert all(x.isfinite().all() for state in saved for x in state.values() if x.is_floating_point())
