"""The compiled hash grid field against its float64 reference."""

import pytest
import torch
from torch import Tensor

from lumigraph.kernels import hashgrid, splatting
from lumigraph.kernels.reference import hashgrid as reference

GRIDS = [(10, 4, 64), (14, 16, 512), (19, 16, 2048)]
ON_DEVICES = pytest.mark.parametrize("device", ["cpu", "emulated", "cuda"], indirect=True)
SAMPLES = {"cpu": (1, 95, 96, 1000), "emulated": (1, 300), "cuda": (1, 95, 1000, 100_000)}


def inputs(grid: hashgrid.HashGrid, samples: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    table = torch.randn(grid.table_rows, 2, generator=g) * 0.3
    # Positions have few bits, so that their offsets in a cell are exact in float32. Only arithmetic errors remain.
    xyz = (torch.rand(samples, 3, generator=g) * 4096).round() / 4096
    direction = torch.nn.functional.normalize(torch.randn(samples, 3, generator=g), dim=1)
    return table, hashgrid.init_mlp_weights(g) * 0.7, xyz, direction


def relative_error(a: Tensor, b: Tensor) -> float:
    """Return the relative error of a against the truth b."""
    return float((a.double() - b).norm() / b.norm())


@pytest.mark.parametrize("shape", GRIDS)
@pytest.mark.parametrize("device, samples", [(d, n) for d in SAMPLES for n in SAMPLES[d]], indirect=["device"])
def test_query_field_equals_reference(
    shape: tuple[int, int, int], samples: int, device: torch.device, request: pytest.FixtureRequest
) -> None:
    grid = hashgrid.HashGrid(*shape)
    table, weights, xyz, direction = (x.to(device) for x in inputs(grid, samples))
    up = torch.randn(samples, 4, generator=torch.Generator().manual_seed(1)).to(device)
    leaves = [table.requires_grad_(), weights.requires_grad_()]
    out = hashgrid.query_field(grid, *leaves, xyz, direction)
    truth_leaves = [x.detach().double().requires_grad_() for x in leaves]
    truth = reference.query_field(grid.levels, *truth_leaves, xyz.double(), direction.double())
    assert relative_error(out.detach(), truth.detach()) < 1e-5
    gradients = torch.autograd.grad(out, leaves, up)
    expected = torch.autograd.grad(truth, truth_leaves, up.double())
    tolerance = 1e-5 if request.node.callspec.params["device"] == "cpu" else 1e-3  # TF32 has 11 bits
    for actual, expected_gradient in zip(gradients, expected, strict=True):
        assert relative_error(actual, expected_gradient) < tolerance
    begin = 0
    for out_of, of in reference.MLP_SHAPES:  # each matrix by itself, because large ones hide small ones
        part = slice(begin, begin := begin + out_of * of)
        assert relative_error(gradients[1][part], expected[1][part]) < 2 * tolerance


@ON_DEVICES
def test_query_density_equals_query_field(device: torch.device) -> None:
    grid = hashgrid.HashGrid(12, 8, 128)
    table, weights, xyz, direction = (x.to(device) for x in inputs(grid, 200))
    torch.testing.assert_close(
        hashgrid.query_density(grid, table, weights, xyz),
        hashgrid.query_field(grid, table, weights, xyz, direction)[:, 0],
    )


@ON_DEVICES
def test_query_field_accumulates_table_grad(device: torch.device) -> None:
    grid = hashgrid.HashGrid(10, 4, 64)
    table, weights, xyz, direction = (x.to(device) for x in inputs(grid, 40))
    (expected,) = torch.autograd.grad(
        hashgrid.query_field(grid, table.requires_grad_(), weights, xyz, direction).sum(), table
    )
    table.grad = torch.ones_like(table)
    hashgrid.query_field(grid, table, weights, xyz, direction, table.grad).sum().backward()
    torch.testing.assert_close(table.grad, 1 + expected)


@ON_DEVICES
def test_query_field_accepts_no_samples(device: torch.device) -> None:
    grid = hashgrid.HashGrid(10, 4, 64)
    table, weights, xyz, direction = (x.to(device) for x in inputs(grid, 0))
    out = hashgrid.query_field(grid, table.requires_grad_(), weights, xyz, direction)
    assert out.shape == (0, 4) and hashgrid.query_density(grid, table, weights, xyz).shape == (0,)
    (gradient,) = torch.autograd.grad(out, table, out.detach())
    assert not gradient.any()


def test_query_field_is_independent_of_threads() -> None:
    grid = hashgrid.HashGrid(12, 8, 256)
    table, weights, xyz, direction = inputs(grid, 5000)
    up = torch.ones(5000, 4)
    most = splatting.threads()
    results = []
    try:
        for threads in (1, 2, 4):
            splatting.set_threads(threads)
            leaves = [table.clone().requires_grad_(), weights.clone().requires_grad_()]
            out = hashgrid.query_field(grid, *leaves, xyz, direction)
            results.append([out.detach(), *torch.autograd.grad(out, leaves, up)])
    finally:
        splatting.set_threads(most)
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))


@ON_DEVICES
def test_query_density_clamps_positions_and_nan(device: torch.device) -> None:
    grid = hashgrid.HashGrid(10, 4, 64)
    table, weights, _, _ = (x.to(device) for x in inputs(grid, 1))
    xyz = torch.tensor([[-5.0, 2, 0.5], [torch.nan, 0.5, torch.inf], [1, 1, 1], [0, 0, 0]], device=device)
    clamped_xyz = torch.tensor([[0.0, 1, 0.5], [0, 0.5, 1], [1, 1, 1], [0, 0, 0]], device=device)
    sigma = hashgrid.query_density(grid, table, weights, xyz)
    assert torch.equal(sigma, hashgrid.query_density(grid, table, weights, clamped_xyz)) and sigma.isfinite().all()


@ON_DEVICES
def test_query_field_gradient_survives_density_cap(device: torch.device) -> None:
    grid = hashgrid.HashGrid(10, 4, 64)
    table, weights, xyz, direction = (x.to(device) for x in inputs(grid, 50))
    weights = (100 * weights).requires_grad_()
    for field in (hashgrid.query_field, lambda _, *inputs: reference.query_field(grid.levels, *inputs)):
        density = field(grid, table, weights, xyz, direction)[:, 0]
        assert density.max().detach() == pytest.approx(torch.tensor(15.0).exp().item(), rel=1e-4)
        (gradient,) = torch.autograd.grad(density.max(), weights)
        assert gradient.abs().max() > 0


@ON_DEVICES
@pytest.mark.parametrize("size", [1e2, 1e4])
def test_query_field_saturates_colours(size: float, device: torch.device) -> None:
    grid = hashgrid.HashGrid(10, 4, 64)
    table, weights, xyz, direction = (x.to(device) for x in inputs(grid, 200))
    out = hashgrid.query_field(grid, table, weights * size, xyz, direction)
    truth = reference.query_field(
        grid.levels, table.double(), weights.double() * size, xyz.double(), direction.double()
    )
    torch.testing.assert_close(out[:, 1:], truth[:, 1:].float(), rtol=1e-3, atol=1e-3)
    assert out.isfinite().all()


@ON_DEVICES
def test_hash_grid_rejects_wrong_table_size(device: torch.device) -> None:
    grid = hashgrid.HashGrid(10, 4, 64)
    table, weights, xyz, direction = (x.to(device) for x in inputs(grid, 5))
    with pytest.raises(ValueError, match="table has"):
        hashgrid.query_field(grid, table[:-1], weights, xyz, direction)
    with pytest.raises(ValueError, match="weights has"):
        hashgrid.query_field(grid, table, weights[:-1], xyz, direction)
    levels = [tuple(level) for level in grid.levels]
    for invalid in ((2.0, 3, 0, 1024, False), (4.0, 6, 0, 100, True), (4.0, 6, 0, 1000, False)):
        with pytest.raises(ValueError, match="level 0"):
            hashgrid.native.Grid([invalid, *levels[1:]])


@pytest.mark.parametrize("device", ["emulated", "cuda"], indirect=True)
def test_query_field_rejects_misaligned_rows(device: torch.device) -> None:
    grid = hashgrid.HashGrid(10, 4, 64)
    table, weights, xyz, direction = (x.to(device) for x in inputs(grid, 5))
    misaligned_table = torch.zeros(table.numel() + 1, device=device)[1:].view(-1, 2)
    with pytest.raises(ValueError, match="not aligned to a row"):
        hashgrid.query_field(grid, misaligned_table, weights, xyz, direction)


@ON_DEVICES
def test_query_field_propagates_nan_to_weight_gradient(device: torch.device) -> None:
    grid = hashgrid.HashGrid(10, 4, 64)
    table, weights, xyz, direction = (x.to(device) for x in inputs(grid, 20))
    out = hashgrid.query_field(grid, table, weights.requires_grad_(), xyz, direction)
    for invalid in (torch.nan, torch.inf):
        up = torch.zeros_like(out)
        up[13, 2] = invalid
        (gradient,) = torch.autograd.grad(out, weights, up, retain_graph=True)
        assert not gradient.isfinite().all()
