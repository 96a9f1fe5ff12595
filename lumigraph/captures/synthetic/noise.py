"""Solid noise, colours and masks: the building blocks of all textures."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from lumigraph.captures.synthetic.vectors import Floats

LATTICE_SIZE = 32  # cells; the noise repeats after them


class Noise:
    """Value noise in 3D: random numbers on a lattice, smoothly interpolated, in octaves (Ebert et al. 1994).

    Solid noise needs no chart: it has neither seams nor poles, and neighbouring parts of one board share one grain.
    """

    def __init__(self, seed: int) -> None:
        lattice = np.random.default_rng(seed).random((LATTICE_SIZE,) * 3, np.float32)
        # Slices are stacked vertically, each padded with its first row and column: interpolation in a slice is then a
        # bilinear lookup, which OpenCV does in a few nanoseconds.
        self.slices = np.pad(lattice, ((0, 0), (0, 1), (0, 1)), mode="wrap").reshape(-1, LATTICE_SIZE + 1)

    def __call__(
        self, point: Floats, frequency: float | Sequence[float], octaves: int = 1, gain: float = 0.5
    ) -> Floats:
        """Points (3, R) -> values (R,), 0..1 around 0.5. `frequency`: cells per metre, one for all axes or one each."""
        lattice_point = (point * np.array(frequency, np.float32).reshape(-1, 1)).astype(np.float32)
        value_sum, weight, amplitude = np.zeros(lattice_point.shape[1], np.float32), 0.0, 1.0
        for octave in range(octaves):
            value_sum += np.float32(amplitude) * self._octave(
                lattice_point * np.float32(2**octave) + np.float32(7.31 * octave)
            )
            weight, amplitude = weight + amplitude, amplitude * gain
        return value_sum / np.float32(weight)

    def _octave(self, lattice_point: Floats) -> Floats:
        floor = np.floor(lattice_point)
        f = lattice_point - floor
        x, y, z = floor - LATTICE_SIZE * np.floor(floor / LATTICE_SIZE) + f * f * (3 - 2 * f)
        low = np.floor(z)
        row = low * (LATTICE_SIZE + 1) + y
        upper_row = np.where(low < LATTICE_SIZE - 1, row + (LATTICE_SIZE + 1), y)
        lower = cv2.remap(self.slices, x[None], row[None], cv2.INTER_LINEAR)[0]
        upper = cv2.remap(self.slices, x[None], upper_row[None], cv2.INTER_LINEAR)[0]
        return np.asarray(lower + (upper - lower) * (z - low), np.float32)


def rgb(code: int) -> Floats:
    """Convert an sRGB colour 0xRRGGBB to linear light (3,)."""
    srgb = np.array([code >> 16 & 255, code >> 8 & 255, code & 255]) / 255
    return np.where(srgb < 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4).astype(np.float32)


def ramp(value: Floats, *stops: tuple[float, int]) -> Floats:
    """Interpolate colours 0xRRGGBB at the given stops: (R,) -> linear light (R, 3)."""
    positions = [stop for stop, _ in stops]
    colours = np.stack([rgb(code) for _, code in stops])
    return np.stack([np.interp(value, positions, colours[:, c]) for c in range(3)], -1).astype(np.float32)


def mix(a: Floats, b: Floats, share: Floats) -> Floats:
    """Blend linearly: `a` (R, 3) where `share` (R,) is 0, `b` (R, 3) or (3,) where it is 1."""
    blend: Floats = a + (b - a) * share[:, None]
    return blend


def shade(colour: Floats, light: Floats) -> Floats:
    """Multiply a colour (R, 3) or (3,) by `light` (R,): (R, 3)."""
    colour_lit: Floats = colour * light[:, None]
    return colour_lit


def linear_step(value: Floats, edge: float, width: float) -> Floats:
    """0 below the edge, 1 above it, linear across `width`."""
    share: Floats = np.clip((value - np.float32(edge)) / np.float32(width) + np.float32(0.5), 0, 1)
    return share


def stripe_mask(value: Floats, half: float, width: float) -> Floats:
    """1 where |value| is below `half`, 0 beyond, linear across `width`."""
    mask: Floats = 1 - linear_step(np.abs(value), half, width)
    return mask


def speckle_mask(noise: Noise, point: Floats, frequency: float, share: float) -> Floats:
    """Mask (R,), 0..1, of small round spots on about `share` of the surface."""
    return linear_step(noise(point, frequency), 1 - 0.6 * math.sqrt(share), 0.08)


def distance_to_integer(value: Floats) -> Floats:
    """Distance to the nearest integer."""
    return np.abs(value - np.round(value))
