"""Gaussians and points: what may be built, and that a moved scene is the same scene seen from elsewhere."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from lumigraph.scene.assets import Points, Splats
from lumigraph.scene.harmonics import C0, rotate_sh, sh_basis
from lumigraph.scene.poses import Similarity, matrix_from_quaternion

# -- spherical harmonics ---------------------------------------------------------------------------------------------


def test_the_basis_is_orthonormal() -> None:
    """Gauss-Legendre in z times even steps around z integrates products of two functions of degree 3 exactly."""
    nodes, weights = np.polynomial.legendre.leggauss(8)
    z, turn = torch.from_numpy(nodes)[:, None], torch.arange(16, dtype=torch.float64) * math.pi / 8
    r = (1 - z * z).sqrt()
    sphere = torch.stack([r * turn.cos(), r * turn.sin(), z.expand(8, 16)], dim=-1)
    basis = sh_basis(sphere, 3)
    area = torch.from_numpy(weights)[:, None, None, None] * math.pi / 8
    products = (area * basis[..., :, None] * basis[..., None, :]).sum(dim=(0, 1))
    assert torch.allclose(products, torch.eye(16, dtype=torch.float64), atol=1e-12)


def test_the_signs_are_those_of_gaussian_splatting_files() -> None:
    x, y, z = torch.eye(3, dtype=torch.float64)
    assert sh_basis(y, 1).tolist() == pytest.approx([C0, -0.4886025119029199, 0, 0])
    assert sh_basis(z, 1).tolist() == pytest.approx([C0, 0, 0.4886025119029199, 0], abs=1e-12)
    assert sh_basis(x, 1).tolist() == pytest.approx([C0, 0, 0, -0.4886025119029199])
    with pytest.raises(ValueError, match="degree 0 to 3"):
        sh_basis(x, 4)


@given(st.integers(0, 2**31), st.integers(0, 3))
@settings(max_examples=20, deadline=None)
def test_a_turned_colour_is_the_old_colour_seen_the_old_way(seed: int, degree: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    sh = torch.randn(5, (degree + 1) ** 2, 3, generator=generator, dtype=torch.float64)
    turn = matrix_from_quaternion(torch.randn(4, generator=generator, dtype=torch.float64))
    directions = normalize(torch.randn(20, 3, generator=generator, dtype=torch.float64), dim=1)
    before = torch.einsum("dk,nkc->dnc", sh_basis(directions, degree), sh)
    after = torch.einsum("dk,nkc->dnc", sh_basis(directions @ turn.T, degree), rotate_sh(sh, turn))
    assert torch.allclose(after, before, atol=1e-10)


# -- gaussians -------------------------------------------------------------------------------------------------------


def splats(n: int, degree: int, seed: int = 0) -> Splats:
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    return Splats(randn(n, 3), randn(n, 3), randn(n, 4), randn(n), randn(n, (degree + 1) ** 2, 3))


def covariances(splats: Splats) -> Tensor:
    """(N, 3, 3) R S S^T R^T."""
    axes = matrix_from_quaternion(splats.quats.double()) * splats.log_scales.double().exp()[:, None]
    return axes @ axes.transpose(1, 2)


@given(st.integers(0, 2**31), st.integers(0, 3))
@settings(max_examples=20, deadline=None)
def test_moved_gaussians(seed: int, degree: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    turn = matrix_from_quaternion(torch.randn(4, generator=generator, dtype=torch.float64))
    similarity = Similarity(2.5, turn, torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64))
    before = splats(6, degree, seed)
    after = before.transform(similarity)
    assert torch.allclose(after.means, similarity.transform_points(before.means))
    expected = 2.5**2 * turn @ covariances(before) @ turn.T
    assert torch.allclose(covariances(after), expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())
    assert torch.equal(after.logit_opacities, before.logit_opacities)
    assert torch.equal(after.colours(), before.colours())
    direction = normalize(torch.randn(3, generator=generator), dim=0)
    seen_before = torch.einsum("k,nkc->nc", sh_basis(direction, degree), before.sh)
    seen_after = torch.einsum("k,nkc->nc", sh_basis(turn.float() @ direction, degree), after.sh)
    assert torch.allclose(seen_after, seen_before, atol=1e-4)
    back = after.transform(similarity.inverse())
    assert torch.allclose(back.means, before.means, atol=1e-5)
    assert torch.allclose(back.sh, before.sh, atol=1e-5)


def test_gaussians() -> None:
    some = splats(5, 2)
    assert len(some) == 5 and some.sh_degree == 2
    assert torch.allclose(some.colours(), 0.5 + C0 * some.sh[:, 0])
    low, high = some.bounds()
    assert (some.means >= low).all() and (some.means <= high).all() and (some.means == low).any(dim=0).all()
    few = some.select(torch.tensor([True, False, False, True, False]))
    assert torch.equal(few.quats, some.quats[[0, 3]])
    assert torch.equal(some.to("cpu").sh, some.sh)
    with pytest.raises(ValueError, match="no bounds"):
        some.select(torch.zeros(5, dtype=torch.bool)).bounds()


def test_wrong_gaussians_are_refused() -> None:
    good = splats(4, 1)
    wrong: list[tuple[dict[str, Tensor], str]] = [
        ({"means": good.means[:, :2]}, "means must have the shape"),
        ({"quats": good.quats[:3]}, "quats must have the shape"),
        ({"logit_opacities": good.logit_opacities[:, None]}, "logit_opacities must have the shape"),
        ({"sh": good.sh[:, :3]}, "sh must have the shape"),
        ({"log_scales": good.log_scales.double()}, "log_scales must be float32"),
    ]
    for change, message in wrong:
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(good, **change)


# -- points ----------------------------------------------------------------------------------------------------------


def seen_points(rows: list[list[int]]) -> Points:
    offsets = torch.tensor([0, *(len(row) for row in rows)]).cumsum(0)
    images = torch.tensor([image for row in rows for image in row], dtype=torch.int32)
    n = len(rows)
    xyz = torch.arange(3 * n).view(n, 3).float()
    return Points(xyz, torch.arange(3 * n, dtype=torch.uint8).view(n, 3), xyz + 1, offsets, images)


def rows_of(points: Points) -> list[list[int]]:
    assert points.view_offsets is not None and points.view_indices is not None
    ends = points.view_offsets.tolist()
    return [points.view_indices[a:b].tolist() for a, b in itertools.pairwise(ends)]


tables = st.lists(st.lists(st.integers(0, 9), max_size=5), max_size=8)


@given(tables, st.data())
@settings(max_examples=25, deadline=None)
def test_selected_points_keep_their_rows(rows: list[list[int]], data: st.DataObject) -> None:
    points = seen_points(rows)
    assert rows_of(points) == rows
    assert points.view_counts is not None and points.view_counts.tolist() == [len(row) for row in rows]
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1))) if rows else []
    few = points.select(torch.tensor(chosen, dtype=torch.int64))
    assert rows_of(few) == [rows[i] for i in chosen]
    assert torch.equal(few.xyz, points.xyz[chosen])
    assert few.rgb is not None and few.normals is not None and len(few.rgb) == len(few.normals) == len(few)
    mask = torch.tensor(data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))), dtype=torch.bool)
    assert rows_of(points.select(mask)) == [row for row, keep in zip(rows, mask.tolist(), strict=True) if keep]


@given(tables, st.lists(st.integers(0, 9), unique=True))
@settings(max_examples=25, deadline=None)
def test_points_forget_images_that_were_not_chosen(rows: list[list[int]], images: list[int]) -> None:
    known = seen_points(rows).remap_images(torch.tensor(images, dtype=torch.int64), 10)
    assert rows_of(known) == [[images.index(image) for image in row if image in images] for row in rows]


def test_points_of_which_little_is_known() -> None:
    points = Points(torch.rand(4, 3))
    assert points.view_counts is None
    assert len(points.select(torch.tensor([1, 2]))) == 2
    assert points.remap_images(torch.tensor([0]), 3) is points


def test_wrong_points_are_refused() -> None:
    xyz = torch.rand(2, 3)
    offsets, images = torch.tensor([0, 1, 3]), torch.zeros(3, dtype=torch.int32)
    Points(xyz, view_offsets=offsets, view_indices=images)
    wrong: list[tuple[dict[str, Tensor], str]] = [
        ({"rgb": torch.rand(2, 3)}, "rgb must be"),
        ({"normals": torch.rand(3, 3)}, "normals must be"),
        ({"view_offsets": offsets}, "come together"),
        ({"view_offsets": offsets[:2], "view_indices": images}, "view_offsets must be"),
        ({"view_offsets": offsets, "view_indices": images.long()}, "view_indices must be"),
        ({"view_offsets": offsets, "view_indices": images[:2]}, "must grow from 0"),
        ({"view_offsets": torch.tensor([0, 4, 3]), "view_indices": images}, "must grow from 0"),
        ({"view_offsets": offsets, "view_indices": images - 1}, "not be negative"),
    ]
    for change, message in wrong:
        with pytest.raises(ValueError, match=message):
            Points(xyz, **change)
    with pytest.raises(ValueError, match="xyz must be"):
        Points(xyz.double())
