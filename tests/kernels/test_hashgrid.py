"""The compiled field against its plain-torch twin in float64."""

import pytest
import torch
from torch import Tensor

from lumigraph.kernels import hashgrid, splat
from lumigraph.kernels.reference import hashgrid as twin

GRIDS = [(10, 4, 64), (14, 16, 512), (19, 16, 2048)]


def inputs(grid: hashgrid.Grid, samples: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    table = torch.randn(grid.entries, 2, generator=g) * 0.3
    # with few bits, so that their places in a cell are exact in single precision: what is left is the arithmetic
    xyz = (torch.rand(samples, 3, generator=g) * 4096).round() / 4096
    direction = torch.nn.functional.normalize(torch.randn(samples, 3, generator=g), dim=1)
    return table, hashgrid.networks(g) * 0.7, xyz, direction


def far(a: Tensor, b: Tensor) -> float:
    """Relative distance of a from the truth b."""
    return float((a.double() - b).norm() / b.norm())


@pytest.mark.parametrize("shape", GRIDS)
@pytest.mark.parametrize("samples", [1, 95, 96, 1000])
def test_values_and_gradients_are_those_of_the_twin(shape: tuple[int, int, int], samples: int) -> None:
    grid = hashgrid.Grid(*shape)
    table, weights, xyz, direction = inputs(grid, samples)
    up = torch.randn(samples, 4, generator=torch.Generator().manual_seed(1))
    leaves = [table.requires_grad_(), weights.requires_grad_()]
    out = hashgrid.field(grid, *leaves, xyz, direction)
    truth_leaves = [x.detach().double().requires_grad_() for x in leaves]
    truth = twin.field(grid.levels, *truth_leaves, xyz.double(), direction.double())
    assert far(out.detach(), truth.detach()) < 1e-5
    gradients = torch.autograd.grad(out, leaves, up)
    expected = torch.autograd.grad(truth, truth_leaves, up.double())
    for got, wanted in zip(gradients, expected, strict=True):
        assert far(got, wanted) < 1e-5


def test_density_is_the_fields_own() -> None:
    grid = hashgrid.Grid(12, 8, 128)
    table, weights, xyz, direction = inputs(grid, 500)
    torch.testing.assert_close(
        hashgrid.density(grid, table, weights, xyz), hashgrid.field(grid, table, weights, xyz, direction)[:, 0]
    )


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    grid = hashgrid.Grid(12, 8, 256)
    table, weights, xyz, direction = inputs(grid, 5000)
    up = torch.ones(5000, 4)
    most = splat.threads()
    results = []
    try:
        for threads in (1, 2, 4):
            splat.set_threads(threads)
            leaves = [table.clone().requires_grad_(), weights.clone().requires_grad_()]
            out = hashgrid.field(grid, *leaves, xyz, direction)
            results.append([out.detach(), *torch.autograd.grad(out, leaves, up)])
    finally:
        splat.set_threads(most)
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))


def test_positions_outside_the_cube_and_nan_stay_in_the_table() -> None:
    grid = hashgrid.Grid(10, 4, 64)
    table, weights, _, _ = inputs(grid, 1)
    xyz = torch.tensor([[-5.0, 2, 0.5], [torch.nan, 0.5, torch.inf], [1, 1, 1], [0, 0, 0]])
    assert hashgrid.density(grid, table, weights, xyz).isfinite().all()


def test_a_density_that_ran_away_finds_its_way_back() -> None:
    grid = hashgrid.Grid(10, 4, 64)
    table, weights, xyz, direction = inputs(grid, 50)
    weights = (100 * weights).requires_grad_()
    for field in (hashgrid.field, lambda _, *rest: twin.field(grid.levels, *rest)):
        density = field(grid, table, weights, xyz, direction)[:, 0]
        assert density.max().detach() == pytest.approx(torch.tensor(15.0).exp().item(), rel=1e-4)
        (gradient,) = torch.autograd.grad(density.max(), weights)
        assert gradient.abs().max() > 0


@pytest.mark.parametrize("size", [1e2, 1e4])
def test_colours_far_beyond_black_and_white_saturate(size: float) -> None:
    grid = hashgrid.Grid(10, 4, 64)
    table, weights, xyz, direction = inputs(grid, 500)
    out = hashgrid.field(grid, table, weights * size, xyz, direction)
    truth = twin.field(grid.levels, table.double(), weights.double() * size, xyz.double(), direction.double())
    torch.testing.assert_close(out[:, 1:], truth[:, 1:].float(), rtol=1e-3, atol=1e-3)
    assert out.isfinite().all()


def test_a_grid_that_does_not_fit_its_table_is_refused() -> None:
    grid = hashgrid.Grid(10, 4, 64)
    table, weights, xyz, direction = inputs(grid, 5)
    with pytest.raises(ValueError, match="table has"):
        hashgrid.field(grid, table[:-1], weights, xyz, direction)
    with pytest.raises(ValueError, match="weights has"):
        hashgrid.field(grid, table, weights[:-1], xyz, direction)
    levels = [tuple(level) for level in grid.levels]
    for wrong in ((2.0, 3, 0, 1024, False), (4.0, 6, 0, 100, True), (4.0, 6, 0, 1000, False)):
        with pytest.raises(ValueError, match="level 0"):
            hashgrid.native.Grid([wrong, *levels[1:]])
