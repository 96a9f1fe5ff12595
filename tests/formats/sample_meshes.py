"""Sample mesh for the tests of formats, and comparison with trimesh."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import trimesh
from scipy.spatial import cKDTree

from lumigraph.scene.assets import Mesh

TEXTURE_SIZE = (8, 4)  # of the texture; all pixels differ, so that flips and rotations are detected


def make_mesh(*, texture: bool = False, rgb: bool = False, normals: bool = False, subdivisions: int = 3) -> Mesh:
    """A closed bumpy ball, off centre, elongated and asymmetric.

    Each vertex has its own texture coordinates, the centre of a pixel.
    """
    ball = trimesh.creation.icosphere(subdivisions=subdivisions)
    v = np.asarray(ball.vertices)
    positions = v * (1 + 0.1 * np.sin(5 * v[:, :1]) * np.cos(4 * v[:, 1:2])) * [1, 2, 0.5] + [0.3, -0.2, 5]
    random = np.random.default_rng(1)
    width, height = TEXTURE_SIZE
    pixels = np.stack([random.integers(width, size=len(v)), random.integers(height, size=len(v))], axis=1)
    pixels_rgb = random.permutation(width * height * 3).reshape(height, width, 3) * 255 // (width * height * 3)
    return Mesh(
        vertices=torch.tensor(positions, dtype=torch.float32),
        faces=torch.tensor(np.asarray(ball.faces), dtype=torch.int32),
        normals=torch.tensor(v / np.linalg.norm(v, axis=1, keepdims=True), dtype=torch.float32) if normals else None,
        uv=torch.tensor((pixels + 0.5) / [width, height], dtype=torch.float32) if texture else None,
        rgb=torch.tensor(random.integers(256, size=(len(v), 3)), dtype=torch.uint8) if rgb else None,
        texture=torch.tensor(pixels_rgb, dtype=torch.uint8) if texture else None,
    )


def vertex_colours(mesh: Mesh) -> np.ndarray:
    """(V, 3) vertex colours, from the texture if there is one."""
    if mesh.texture is None or mesh.uv is None:
        assert mesh.rgb is not None
        return mesh.rgb.numpy()
    height, width, _ = mesh.texture.shape
    u, v = (mesh.uv.numpy() * [width, height]).astype(int).clip(0, [width - 1, height - 1]).T
    return mesh.texture.numpy()[v, u]


def load_with_trimesh(path: Path) -> trimesh.Trimesh:
    """Load a mesh without merging or sorting vertices."""
    return trimesh.load(path, process=False, maintain_order=True, force="mesh")


def assert_trimesh_matches(
    path: Path, mesh: Mesh, *, tolerance: float = 1e-6, vertices: int | None = None
) -> trimesh.Trimesh:
    """Check that trimesh loads the same closed surface with outward orientation."""
    loaded_mesh = load_with_trimesh(path)
    assert len(loaded_mesh.faces) == len(mesh)
    assert len(loaded_mesh.vertices) == (len(mesh.vertices) if vertices is None else vertices)
    original = trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False)
    assert loaded_mesh.is_watertight and loaded_mesh.volume > 0
    assert abs(loaded_mesh.volume - original.volume) < 20 * tolerance * original.area + 1e-5
    assert np.abs(loaded_mesh.bounds - original.bounds).max() <= tolerance
    assert_same_positions(np.asarray(loaded_mesh.vertices), mesh, tolerance)
    return loaded_mesh


def assert_same_positions(positions: np.ndarray, mesh: Mesh, tolerance: float) -> np.ndarray:
    """Check that each position is `within` reach of a vertex of the mesh; returns the indices of these vertices."""
    distances, indices = cKDTree(mesh.vertices.numpy()).query(positions)
    assert distances.max() <= tolerance * np.sqrt(3)
    return np.asarray(indices)


def trimesh_colours(loaded_mesh: trimesh.Trimesh) -> np.ndarray:
    """(V, 3) vertex colours that trimesh looks up in the texture."""
    visual = loaded_mesh.visual
    if visual.kind == "texture":
        material = visual.material
        pixels_rgb = getattr(material, "baseColorTexture", None) or material.image
        return trimesh.visual.uv_to_color(visual.uv, pixels_rgb)[:, :3]
    return np.asarray(visual.vertex_colors)[:, :3]
