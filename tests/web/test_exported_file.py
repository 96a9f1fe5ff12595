"""Exported GLB meshes in three.js: upright and correctly textured, with and without compression."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lumigraph.formats.gltf import gltf_format as gltf
from lumigraph.scene.assets import Mesh
from tests.web.conftest import run_script


def wall() -> Mesh:
    """Square that faces +z. Texture: left half green, right half blue, a red band on top."""
    vertices = torch.tensor([[-1.0, 0, 0], [1, 0, 0], [1, 2, 0], [-1, 2, 0]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]], dtype=torch.int32)
    uv = torch.tensor([[0.0, 1], [1, 1], [1, 0], [0, 0]])
    texture = torch.zeros(64, 64, 3, dtype=torch.uint8)
    texture[16:, :32, 1] = 255
    texture[16:, 32:, 2] = 255
    texture[:16, :, 0] = 255
    return Mesh(vertices, faces, uv=uv, texture=texture)


@pytest.mark.parametrize("compression", ["none", "draco", "meshopt"])
def test_gltf_upright_in_three(chromium: Path, tmp_path: Path, compression: str) -> None:
    gltf.write(wall(), tmp_path / "wall.glb", gltf.Options(compression=compression))  # type: ignore[arg-type]
    [report] = run_script("exportedFile.mjs", tmp_path / "wall.glb", tmp_path / "render.png", 200, chromium=chromium)
    assert report["triangles"] == 2
    assert np.ravel(report["box"]) == pytest.approx([-1, 0, 0, 1, 2, 0], abs=1e-3)
    with Image.open(tmp_path / "render.png") as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    centres = []
    for channel in range(3):
        other_channels = np.delete(pixels, channel, axis=2).max(axis=2)
        rows, columns = np.nonzero((pixels[..., channel] > 150) & (other_channels < 80))
        assert len(rows) > 100
        centres.append((rows.mean(), columns.mean()))
    red, green, blue = centres
    assert red[0] < min(green[0], blue[0]) - 20  # above
    assert green[1] < blue[1] - 20  # left
