"""A capture: cameras with their photos, masks, points and scale."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from lumigraph.scene.assets import Points
from lumigraph.scene.cameras import Cameras
from lumigraph.scene.errors import CaptureError


class Photos(Protocol):
    """Images by index. Callers must not write into the returned tensors: they may be shared."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: int, /) -> Tensor:
        """uint8 (H, W, 3), or (H, W, 4) with straight alpha, or (H, W, 1) for masks."""
        ...


class ArrayPhotos:
    """Images in memory."""

    def __init__(self, photos: Sequence[Tensor]) -> None:
        self._photos = list(photos)

    def __len__(self) -> int:
        return len(self._photos)

    def __getitem__(self, i: int, /) -> Tensor:
        return self._photos[i]


class LazyPhotos:
    """Images decoded on access, with an LRU cache of up to `cache_bytes` of pixels.

    `decode` turns a path into a uint8 tensor (H, W, C) and raises CaptureError if it fails. Not thread-safe.
    """

    def __init__(self, paths: Sequence[Path], decode: Callable[[Path], Tensor], cache_bytes: int = 512 << 20) -> None:
        self.paths = tuple(paths)
        self._decode = decode
        self._cache_bytes = cache_bytes
        self._cache_used = 0
        self._cache: OrderedDict[int, Tensor] = OrderedDict()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int, /) -> Tensor:
        i = range(len(self))[i]  # supports negative indices and raises IndexError
        if i in self._cache:
            self._cache.move_to_end(i)
            return self._cache[i]
        photo = self._decode(self.paths[i])
        if photo.dtype != torch.uint8 or photo.ndim != 3:
            raise CaptureError(f"{self.paths[i]} decoded to {photo.dtype} {tuple(photo.shape)}, not to 8-bit pixels")
        if photo.nbytes <= self._cache_bytes:
            self._cache[i] = photo
            self._cache_used += photo.nbytes
        while self._cache_used > self._cache_bytes:
            _, oldest = self._cache.popitem(last=False)
            self._cache_used -= oldest.nbytes
        return photo


class SelectedPhotos:
    """A reordered subset of other photos."""

    def __init__(self, photos: Photos, indices: Sequence[int]) -> None:
        self.photos = photos
        self.indices = tuple(indices)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int, /) -> Tensor:
        return self.photos[self.indices[i]]


@dataclass(frozen=True, eq=False)
class Capture:
    """N posed photos. Raises CaptureError if the parts have different image counts."""

    cameras: Cameras
    photos: Photos  # photo i has the size of camera i
    names: tuple[str, ...]  # file names, in the order of the photos
    held_out: Tensor  # (N,) bool: never seen in training
    masks: Photos | None = None  # (H, W, 1) uint8: 0 = ignore, 255 = use
    points: Points | None = None
    metres_per_unit: float | None = None  # None: unknown
    has_alpha: bool = False  # photos are RGBA with straight alpha
    source: str = ""  # format of the dataset: colmap, transforms, blender, llff
    notes: tuple[str, ...] = ()  # sentences for the user about skipped or unusual data

    def __post_init__(self) -> None:
        n = len(self.cameras)
        counts = {"photos": len(self.photos), "names": len(self.names)}
        if self.masks is not None:
            counts["masks"] = len(self.masks)
        for name, count in counts.items():
            if count != n:
                raise CaptureError(f"this capture has {n} cameras but {count} {name}; each image needs one of each")
        if tuple(self.held_out.shape) != (n,) or self.held_out.dtype != torch.bool:
            raise CaptureError(f"held_out must be a bool for each of the {n} images")
        view_indices = None if self.points is None else self.points.view_indices
        if view_indices is not None and len(view_indices) and int(view_indices.max()) >= n:
            raise CaptureError(f"a point names image {int(view_indices.max())} of {n} images")

    def __len__(self) -> int:
        return len(self.cameras)

    def photo(self, i: int) -> Tensor:
        """uint8 (H, W, 3 | 4) of image i. Raises CaptureError if its size differs from its camera's."""
        photo = self.photos[i]
        width, height = self.cameras.size(i)
        channels = 4 if self.has_alpha else 3
        if tuple(photo.shape) != (height, width, channels):
            raise CaptureError(
                f"{self.names[i]} is {photo.shape[1]}x{photo.shape[0]} pixels with {photo.shape[2]} channels, "
                f"but its camera says {width}x{height} with {channels}; pose it again or restore the original photo"
            )
        return photo

    def select(self, indices: Sequence[int] | Tensor) -> Capture:
        """Select images by `indices`, each at most once, in that order, or by a bool mask (N,).

        Points keep only the visibility of those images.
        """
        if isinstance(indices, Tensor) and indices.dtype == torch.bool:
            indices = indices.nonzero()[:, 0]
        selected_indices = [range(len(self))[int(i)] for i in indices]
        if len(set(selected_indices)) != len(selected_indices):
            raise ValueError("an image can be selected only once")
        index_tensor = torch.tensor(selected_indices, dtype=torch.int64)
        return dataclasses.replace(
            self,
            cameras=self.cameras[index_tensor],
            photos=SelectedPhotos(self.photos, selected_indices),
            names=tuple(self.names[i] for i in selected_indices),
            held_out=self.held_out[index_tensor],
            masks=None if self.masks is None else SelectedPhotos(self.masks, selected_indices),
            points=None if self.points is None else self.points.remap_images(index_tensor, len(self)),
        )

    def split(self) -> tuple[Capture, Capture]:
        """Split into (train, held out).

        Training keeps only points that at least two of its own images see. A point located by held-out images would
        leak their colours and geometry into training.
        """
        train, held_out = self.select(~self.held_out), self.select(self.held_out)
        views = None if train.points is None else train.points.view_counts
        if train.points is not None and views is not None:
            train = dataclasses.replace(train, points=train.points.select(views >= 2))
        return train, held_out


def hold_out_every_eighth(names: Sequence[str]) -> Tensor:
    """(N,) bool: images 0, 8, 16 .. in name order, held out by LLFF (Mildenhall et al. 2019) and Mip-NeRF 360."""
    held_out = torch.zeros(len(names), dtype=torch.bool)
    in_order = sorted(range(len(names)), key=lambda i: names[i])
    held_out[in_order[::8]] = True
    return held_out
