"""A mesh of ours as three.js shows it: upright, textured the right way round, packed or not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lumigraph.formats.gltf import gltf_format as gltf
from lumigraph.scene.assets import Mesh
from tests.web.conftest import play


def wall() -> Mesh:
    """A square that looks along +z: the texture's left half green, its right half blue, and red above both."""
    vertices = torch.tensor([[-1.0, 0, 0], [1, 0, 0], [1, 2, 0], [-1, 2, 0]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]], dtype=torch.int32)
    uv = torch.tensor([[0.0, 1], [1, 1], [1, 0], [0, 0]])
    texture = torch.zeros(64, 64, 3, dtype=torch.uint8)
    texture[16:, :32, 1] = 255
    texture[16:, 32:, 2] = 255
    texture[:16, :, 0] = 255
    return Mesh(vertices, faces, uv=uv, texture=texture)


@pytest.mark.parametrize("compression", ["none", "draco", "meshopt"])
def test_three_shows_it_upright(chromium: Path, tmp_path: Path, compression: str) -> None:
    gltf.write(wall(), tmp_path / "wall.glb", gltf.Options(compression=compression))  # type: ignore[arg-type]
    [found] = play("opened.mjs", tmp_path / "wall.glb", tmp_path / "seen.png", 200, chromium=chromium)
    assert found["triangles"] == 2
    assert np.ravel(found["box"]) == pytest.approx([-1, 0, 0, 1, 2, 0], abs=1e-3)
    with Image.open(tmp_path / "seen.png") as picture:
        seen = np.asarray(picture.convert("RGB")).astype(int)
    centres = []
    for channel in range(3):
        others = np.delete(seen, channel, axis=2).max(axis=2)
        rows, columns = np.nonzero((seen[..., channel] > 150) & (others < 80))
        assert len(rows) > 100
        centres.append((rows.mean(), columns.mean()))
    red, green, blue = centres
    assert red[0] < min(green[0], blue[0]) - 20  # above
    assert green[1] < blue[1] - 20  # left
