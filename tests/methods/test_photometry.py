"""Gains of photos found again from the colours of shared points."""

import dataclasses

import torch

from lumigraph.methods import photometry
from lumigraph.scene.assets import Points
from lumigraph.scene.capture import ArrayPhotos, Capture
from tests.methods.test_splat import VIEWS, coloured


def tracked(gains: torch.Tensor) -> Capture:
    """The coloured wall with tracked points, each photo multiplied by its gains (VIEWS, 3)."""
    capture = coloured()
    assert capture.points is not None
    xyz = capture.points.xyz
    width, height = capture.cameras.size(0)
    offsets, images = [0], []
    for point in xyz:
        u = (point[0] - capture.cameras.positions[:, 0]) / point[2] * 20 + width / 2
        v = point[1] / point[2] * 20 + height / 2
        seen = ((u >= 0) & (u < width) & (v >= 0) & (v < height)).nonzero()[:, 0].tolist()
        images += seen
        offsets.append(len(images))
    points = Points(
        xyz,
        view_offsets=torch.tensor(offsets),
        view_indices=torch.tensor(images, dtype=torch.int32),
    )
    photos = [(capture.photo(i) * gains[i]).clamp(0, 255).to(torch.uint8) for i in range(VIEWS)]
    return dataclasses.replace(capture, photos=ArrayPhotos(photos), points=points)


def test_gains_are_found_again() -> None:
    gains = torch.linspace(0.6, 1.0, VIEWS)[:, None] * torch.tensor([1.0, 0.9, 1.0])
    gains[:, 2] = 0.8
    found = photometry.log_gains(tracked(gains))
    assert found is not None
    truth = gains.log() - gains.log().mean(0)
    assert (found - truth).abs().max() < 0.06
    assert photometry.differ(found)


def test_equal_photos_have_no_gains() -> None:
    found = photometry.log_gains(tracked(torch.ones(VIEWS, 3)))
    assert found is not None
    assert found.abs().max() < 0.05
    assert not photometry.differ(found)


def test_points_without_tracks_tell_nothing() -> None:
    assert photometry.log_gains(coloured()) is None
