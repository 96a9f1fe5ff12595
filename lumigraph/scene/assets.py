"""Exportable assets: gaussians, points, meshes and voxels, as tensors without a file format."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from lumigraph.scene.harmonics import C0, rotate_sh
from lumigraph.scene.poses import Similarity, quaternion_from_matrix, quaternion_product


@dataclass(frozen=True, eq=False)
class Splats:
    """N float32 gaussians, raw as in a 3DGS PLY (Kerbl et al. 2023). Raises ValueError if shapes are wrong."""

    means: Tensor  # (N, 3) world units
    log_scales: Tensor  # (N, 3) natural log of the standard deviations in world units
    quats: Tensor  # (N, 4) w x y z, world from gaussian, not necessarily unit
    logit_opacities: Tensor  # (N,) opacity = sigmoid
    sh: Tensor  # (N, K, 3), K = (degree + 1)^2 in 1, 4, 9, 16; sh[:, 0] is DC: colour = C0 * dc + 0.5

    def __post_init__(self) -> None:
        n = self.means.shape[0] if self.means.ndim else 0
        shapes = {"means": (n, 3), "log_scales": (n, 3), "quats": (n, 4), "logit_opacities": (n,)}
        for name, shape in shapes.items():
            if tuple(getattr(self, name).shape) != shape:
                raise ValueError(f"{name} must have the shape {shape}, not {tuple(getattr(self, name).shape)}")
        if self.sh.ndim != 3 or self.sh.shape[0] != n or self.sh.shape[1] not in (1, 4, 9, 16) or self.sh.shape[2] != 3:
            raise ValueError(f"sh must have the shape ({n}, 1 | 4 | 9 | 16, 3), not {tuple(self.sh.shape)}")
        for name in (*shapes, "sh"):
            if getattr(self, name).dtype != torch.float32:
                raise ValueError(f"{name} must be float32, not {getattr(self, name).dtype}")

    def __len__(self) -> int:
        return self.means.shape[0]

    @property
    def sh_degree(self) -> int:
        return math.isqrt(self.sh.shape[1]) - 1

    def colours(self) -> Tensor:
        """(N, 3) colours without the view-dependent part, not clamped to 0..1."""
        return self.sh[:, 0] * C0 + 0.5

    def bounds(self) -> Tensor:
        """(2, 3) smallest and largest coordinates of the means. Raises ValueError if there are none."""
        if not len(self):
            raise ValueError("no gaussians have no bounds")
        return torch.stack([self.means.amin(dim=0), self.means.amax(dim=0)])

    def select(self, indices: Tensor) -> Splats:
        """Select by int64 indices (M,) or a bool mask (N,)."""
        return self._map_tensors(lambda tensor: tensor[indices])

    def to(self, device: torch.device | str) -> Splats:
        return self._map_tensors(lambda tensor: tensor.to(device))

    def transform(self, similarity: Similarity) -> Splats:
        """Rotate, scale and translate: means, scales, quaternions and view-dependent colours."""
        turn = quaternion_from_matrix(similarity.rotation.double()).to(self.quats)
        return Splats(
            similarity.transform_points(self.means),
            self.log_scales + math.log(similarity.scale),
            quaternion_product(turn.expand_as(self.quats), self.quats),
            self.logit_opacities,
            rotate_sh(self.sh, similarity.rotation),
        )

    def _map_tensors(self, change: Callable[[Tensor], Tensor]) -> Splats:
        return Splats(
            change(self.means),
            change(self.log_scales),
            change(self.quats),
            change(self.logit_opacities),
            change(self.sh),
        )


@dataclass(frozen=True, eq=False)
class Points:
    """N points with optional attributes. Raises ValueError if shapes are wrong or the `view_*` table is broken.

    Point i is visible in the images view_indices[view_offsets[i] : view_offsets[i + 1]] (CSR rows).
    """

    xyz: Tensor  # (N, 3) float32 world units
    rgb: Tensor | None = None  # (N, 3) uint8
    normals: Tensor | None = None  # (N, 3) float32
    view_offsets: Tensor | None = None  # (N + 1,) int64
    view_indices: Tensor | None = None  # (sum,) int32 indices into the capture's images

    def __post_init__(self) -> None:
        n = self.xyz.shape[0] if self.xyz.ndim else 0
        expected = {"xyz": torch.float32, "rgb": torch.uint8, "normals": torch.float32}
        for name, dtype in expected.items():
            tensor: Tensor | None = getattr(self, name)
            if tensor is not None and (tuple(tensor.shape) != (n, 3) or tensor.dtype != dtype):
                raise ValueError(f"{name} must be ({n}, 3) {dtype}, not {tuple(tensor.shape)} {tensor.dtype}")
        if (self.view_offsets is None) != (self.view_indices is None):
            raise ValueError("view_offsets and view_indices come together")
        if self.view_offsets is not None and self.view_indices is not None:
            _check_table(self.view_offsets, self.view_indices, n)

    def __len__(self) -> int:
        return self.xyz.shape[0]

    @property
    def view_counts(self) -> Tensor | None:
        """(N,) int64: number of images that see each point, None if unknown."""
        return None if self.view_offsets is None else self.view_offsets.diff()

    def transform(self, similarity: Similarity) -> Points:
        """Rotate, scale and translate."""
        normals = self.normals
        if normals is not None:
            normals = normals @ similarity.rotation.to(normals).T
        return replace(self, xyz=similarity.transform_points(self.xyz), normals=normals)

    def bounds(self) -> Tensor:
        """(2, 3) smallest and largest coordinates. Raises ValueError if there are none."""
        if not len(self):
            raise ValueError("no points have no bounds")
        return torch.stack([self.xyz.amin(dim=0), self.xyz.amax(dim=0)])

    def select(self, indices: Tensor) -> Points:
        """Select by int64 indices (M,) or a bool mask (N,)."""
        indices = indices.nonzero()[:, 0] if indices.dtype == torch.bool else indices
        offsets, images = None, None
        if self.view_offsets is not None and self.view_indices is not None:
            counts = self.view_offsets.diff()[indices]
            offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
            # Entry j of a row is j entries after the row's start, in both tables.
            shift = torch.repeat_interleave(self.view_offsets[indices] - offsets[:-1], counts)
            images = self.view_indices[torch.arange(len(shift)) + shift]
        rgb = None if self.rgb is None else self.rgb[indices]
        normals = None if self.normals is None else self.normals[indices]
        return Points(self.xyz[indices], rgb, normals, offsets, images)

    def remap_images(self, images: Tensor, total: int) -> Points:
        """Restrict visibility to `images` (M,) of `total`, renumbered 0..M-1; other images are dropped."""
        if self.view_offsets is None or self.view_indices is None:
            return self
        number = torch.full((total,), -1, dtype=torch.int32)
        number[images] = torch.arange(len(images), dtype=torch.int32)
        new_indices = number[self.view_indices.long()]
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), (new_indices >= 0).cumsum(0)])
        return Points(self.xyz, self.rgb, self.normals, offsets[self.view_offsets], new_indices[new_indices >= 0])


@dataclass(frozen=True, eq=False)
class Mesh:
    """V vertices and F triangles with optional appearance. Raises ValueError if shapes or indices are wrong.

    Triangles are counter-clockwise seen from outside. A vertex on a texture seam exists once for each side.
    """

    vertices: Tensor  # (V, 3) float32 world units
    faces: Tensor  # (F, 3) int32 indices of vertices
    normals: Tensor | None = None  # (V, 3) float32, unit, outwards
    uv: Tensor | None = None  # (V, 2) float32: u * width, v * height are pixels of the texture, v from the top down
    rgb: Tensor | None = None  # (V, 3) uint8 sRGB
    texture: Tensor | None = None  # (H, W, 3) uint8 sRGB, the top row first; comes with uv

    def __post_init__(self) -> None:
        n = self.vertices.shape[0] if self.vertices.ndim else 0
        expected = {
            "vertices": ((n, 3), torch.float32),
            "normals": ((n, 3), torch.float32),
            "uv": ((n, 2), torch.float32),
            "rgb": ((n, 3), torch.uint8),
        }
        for name, (shape, dtype) in expected.items():
            tensor: Tensor | None = getattr(self, name)
            if tensor is not None and (tuple(tensor.shape) != shape or tensor.dtype != dtype):
                raise ValueError(f"{name} must be {shape} {dtype}, not {tuple(tensor.shape)} {tensor.dtype}")
        if self.faces.ndim != 2 or self.faces.shape[1] != 3 or self.faces.dtype != torch.int32:
            raise ValueError(f"faces must be (F, 3) int32, not {tuple(self.faces.shape)} {self.faces.dtype}")
        if len(self.faces) and not (int(self.faces.min()) >= 0 and int(self.faces.max()) < n):
            raise ValueError(f"faces must name vertices 0 to {n - 1}")
        if self.texture is not None:
            if self.uv is None:
                raise ValueError("a texture comes with uv")
            if self.texture.ndim != 3 or self.texture.shape[2] != 3 or self.texture.dtype != torch.uint8:
                raise ValueError(f"texture must be (H, W, 3) uint8, not {tuple(self.texture.shape)}")

    def __len__(self) -> int:
        """Triangles."""
        return self.faces.shape[0]

    def bounds(self) -> Tensor:
        """(2, 3) smallest and largest coordinates of the vertices. Raises ValueError if there are none."""
        if not len(self.vertices):
            raise ValueError("no vertices have no bounds")
        return torch.stack([self.vertices.amin(dim=0), self.vertices.amax(dim=0)])

    def transform(self, similarity: Similarity) -> Mesh:
        """Rotate, scale and translate vertices and normals."""
        normals = self.normals
        if normals is not None:
            normals = normals @ similarity.rotation.to(normals).T
        return replace(self, vertices=similarity.transform_points(self.vertices), normals=normals)


@dataclass(frozen=True, eq=False)
class VoxelGrid:
    """Voxel positions: voxel (i, j, k) has its centre at origin + voxel * axes @ (i, j, k). Tensors are float64."""

    origin: Tensor  # (3,) the centre of voxel (0, 0, 0)
    axes: Tensor  # (3, 3) orthonormal; column a is the direction of index a
    voxel: float  # edge length, in world units
    shape: tuple[int, int, int]  # voxels along each axis
    truncation: float  # largest distance

    def centres(self, index: Tensor) -> Tensor:
        """(N, 3) float32: the centres of the voxels (N, 3)."""
        return (self.origin + self.voxel * index.double() @ self.axes.T).float()

    def transform(self, similarity: Similarity) -> VoxelGrid:
        origin = similarity.transform_points(self.origin[None])[0]
        axes = similarity.rotation.double() @ self.axes
        scale = similarity.scale
        return replace(self, origin=origin, axes=axes, voxel=self.voxel * scale, truncation=self.truncation * scale)


@dataclass(frozen=True, eq=False)
class Voxels(Points):
    """The N voxels of a grid near a surface: points at voxel centres with their signed distance to the surface."""

    distance: Tensor = field(kw_only=True)  # (N,) float32 world units, positive outside
    grid: VoxelGrid = field(kw_only=True)

    @property
    def index(self) -> Tensor:
        """(N, 3) int64: i, j, k of each voxel."""
        offset = (self.xyz.double() - self.grid.origin) @ self.grid.axes
        return (offset / self.grid.voxel).round().long()

    def transform(self, similarity: Similarity) -> Voxels:
        """Rotate, scale and translate the voxels with their grid."""
        points = super().transform(similarity)
        return Voxels(
            points.xyz,
            points.rgb,
            points.normals,
            distance=self.distance * similarity.scale,
            grid=self.grid.transform(similarity),
        )


Asset = Splats | Points | Mesh


def _check_table(offsets: Tensor, images: Tensor, n: int) -> None:
    if offsets.dtype != torch.int64 or tuple(offsets.shape) != (n + 1,):
        raise ValueError(f"view_offsets must be ({n + 1},) int64, not {tuple(offsets.shape)} {offsets.dtype}")
    if images.dtype != torch.int32 or images.ndim != 1:
        raise ValueError(f"view_indices must be (sum,) int32, not {tuple(images.shape)} {images.dtype}")
    if offsets[0] != 0 or offsets[-1] != len(images) or (offsets.diff() < 0).any():
        raise ValueError(f"view_offsets must grow from 0 to the {len(images)} entries of view_indices")
    if len(images) and images.min() < 0:
        raise ValueError("view_indices must not be negative")
