"""Pictures keep their colours through alpha, averaging and files."""

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lumigraph.scene.images import Image, area_downscale, composite_over, from_uint8, to_uint8, write_png


def test_every_byte_comes_back() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(from_uint8(every)), every)
    assert to_uint8(torch.tensor([-1.0, 0.4999 / 255, 0.5001 / 255, 2.0, float("nan")])).tolist() == [0, 0, 1, 255, 0]


def test_over_a_background() -> None:
    straight = torch.tensor([[[0.8, 0.4, 0.2, 0.25]]])
    rgb, alpha = straight[..., :3], straight[..., 3:]
    image = Image(rgb * alpha, alpha)
    assert torch.allclose(image.composite_over(torch.ones(3)), rgb * 0.25 + 0.75)
    assert torch.allclose(image.straight(), straight)
    assert torch.equal(Image(rgb).composite_over(torch.ones(3)), rgb)
    assert torch.equal(Image(rgb).straight(), rgb)
    photo = to_uint8(straight)
    assert torch.allclose(composite_over(photo, torch.ones(3)), image.composite_over(torch.ones(3)), atol=0.003)
    assert torch.equal(composite_over(photo[..., :3], torch.ones(3)), from_uint8(photo[..., :3]))


def test_an_image_and_its_parts() -> None:
    batch = Image(torch.rand(2, 3, 4, 3), torch.rand(2, 3, 4, 1), torch.rand(2, 3, 4, 1))
    assert batch.alpha is not None and batch.depth is not None
    one = batch[1]
    assert one.alpha is not None and one.depth is not None
    assert torch.equal(one.rgb, batch.rgb[1]) and torch.equal(one.alpha, batch.alpha[1])
    assert torch.equal(one.depth, batch.depth[1])
    with pytest.raises(IndexError):
        one[0]
    with pytest.raises(ValueError, match="rgb"):
        Image(torch.rand(3, 4, 4))
    with pytest.raises(ValueError, match="alpha"):
        Image(torch.rand(3, 4, 3), torch.rand(3, 4))


@pytest.mark.parametrize("channels", [1, 3])
def test_downscaling_by_a_whole_number_is_the_mean_of_blocks(channels: int) -> None:
    values = torch.rand(12, 18, channels)
    blocks = values.view(4, 3, 6, 3, channels).mean(dim=(1, 3))
    assert torch.allclose(area_downscale(values, (6, 4)), blocks, atol=1e-6)
    pixels = to_uint8(values)
    small = area_downscale(pixels, (6, 4))
    assert small.dtype == torch.uint8 and small.shape == (4, 6, channels)
    assert (small.float() - 255 * blocks).abs().max() <= 1.01


@given(st.integers(1, 40), st.integers(1, 40), st.data())
@settings(max_examples=40, deadline=None)
def test_downscaling_keeps_the_mean(width: int, height: int, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, width)), data.draw(st.integers(1, height))
    values = torch.rand(height, width, 3)
    small = area_downscale(values, size)
    assert small.shape == (size[1], size[0], 3)
    assert torch.allclose(small.mean(dim=(0, 1)), values.mean(dim=(0, 1)), atol=1e-5)


def test_the_colour_of_nothing_does_not_bleed() -> None:
    pixels = torch.zeros(2, 2, 4, dtype=torch.uint8)
    pixels[0, 0] = torch.tensor([200, 100, 50, 255])
    pixels[0, 1] = torch.tensor([0, 255, 0, 0])  # an invisible green
    assert area_downscale(pixels, (1, 1))[0, 0].tolist() == [200, 100, 50, 64]
    assert area_downscale(pixels[1:], (1, 1))[0, 0].tolist() == [0, 0, 0, 0]
    values = from_uint8(pixels)
    assert torch.allclose(area_downscale(values, (1, 1))[0, 0], torch.tensor([200, 100, 50, 63.75]) / 255, atol=1e-6)


def test_downscaling_does_not_enlarge() -> None:
    pixels = torch.zeros(4, 4, 3)
    assert area_downscale(pixels, (4, 4)) is pixels
    for size in ((5, 4), (4, 5), (0, 4)):
        with pytest.raises(ValueError, match="cannot area-downscale 4x4"):
            area_downscale(pixels, size)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_a_png_is_read_by_another_library(tmp_path: Path, channels: int, mode: str) -> None:
    pixels = torch.randint(0, 256, (5, 7, channels), dtype=torch.uint8)
    write_png(tmp_path / "a.png", pixels)
    write_png(tmp_path / "b.png", from_uint8(pixels))
    for name in ("a.png", "b.png"):
        with PIL.Image.open(tmp_path / name) as image:
            assert image.mode == mode
            assert np.array_equal(np.asarray(image).reshape(pixels.shape), pixels.numpy())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_what_is_no_picture_writes_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="an image has the shape"):
        write_png(tmp_path / "a.png", torch.zeros(5, 7, 2))
    assert not list(tmp_path.iterdir())
