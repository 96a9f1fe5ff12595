"""Solid noise and colours: what all paints are mixed from."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from lumigraph.captures.synthetic.vectors import Floats

LATTICE = 32  # cells after which the noise repeats


class Noise:
    """Value noise in space: random numbers on a lattice, smooth between them, in octaves (Ebert et al. 1994).

    Solid noise needs no chart: it has neither seams nor poles, and neighbours cut from one board share one grain.
    """

    def __init__(self, seed: int) -> None:
        lattice = np.random.default_rng(seed).random((LATTICE,) * 3, np.float32)
        # Slices one below the other, each with its first row and column again at its end: what lies between four
        # neighbours is then a bilinear look-up, which OpenCV does in a few nanoseconds.
        self.slices = np.pad(lattice, ((0, 0), (0, 1), (0, 1)), mode="wrap").reshape(-1, LATTICE + 1)

    def __call__(
        self, point: Floats, frequency: float | Sequence[float], octaves: int = 1, gain: float = 0.5
    ) -> Floats:
        """(3, R) -> (R,) values 0..1 around 0.5. `frequency` in cells a metre, one for all axes or one for each."""
        place = (point * np.array(frequency, np.float32).reshape(-1, 1)).astype(np.float32)
        total, weight, amplitude = np.zeros(place.shape[1], np.float32), 0.0, 1.0
        for octave in range(octaves):
            total += np.float32(amplitude) * self._once(place * np.float32(2**octave) + np.float32(7.31 * octave))
            weight, amplitude = weight + amplitude, amplitude * gain
        return total / np.float32(weight)

    def _once(self, place: Floats) -> Floats:
        floor = np.floor(place)
        f = place - floor
        x, y, z = floor - LATTICE * np.floor(floor / LATTICE) + f * f * (3 - 2 * f)
        low = np.floor(z)
        row = low * (LATTICE + 1) + y
        above_row = np.where(low < LATTICE - 1, row + (LATTICE + 1), y)
        below = cv2.remap(self.slices, x[None], row[None], cv2.INTER_LINEAR)[0]
        above = cv2.remap(self.slices, x[None], above_row[None], cv2.INTER_LINEAR)[0]
        return np.asarray(below + (above - below) * (z - low), np.float32)


def rgb(code: int) -> Floats:
    """0xRRGGBB as on a screen -> linear light (3,)."""
    srgb = np.array([code >> 16 & 255, code >> 8 & 255, code & 255]) / 255
    return np.where(srgb < 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4).astype(np.float32)


def ramp(value: Floats, *stops: tuple[float, int]) -> Floats:
    """(R,) -> (R, 3): linear light, mixed between colours 0xRRGGBB at given values."""
    at = [stop for stop, _ in stops]
    colours = np.stack([rgb(code) for _, code in stops])
    return np.stack([np.interp(value, at, colours[:, c]) for c in range(3)], -1).astype(np.float32)


def mix(a: Floats, b: Floats, share: Floats) -> Floats:
    """(R, 3), (R, 3) or (3,), (R,) -> a where the share is 0, b where it is 1."""
    mixed: Floats = a + (b - a) * share[:, None]
    return mixed


def shaded(colour: Floats, light: Floats) -> Floats:
    """(R, 3) or (3,), (R,) -> (R, 3)"""
    lit: Floats = colour * light[:, None]
    return lit


def step(value: Floats, edge: float, width: float) -> Floats:
    """0 below the edge, 1 above it, straight across `width`."""
    share: Floats = np.clip((value - np.float32(edge)) / np.float32(width) + np.float32(0.5), 0, 1)
    return share


def stripe(value: Floats, half: float, width: float) -> Floats:
    """1 where |value| is below `half`, 0 beyond; the opposite of an edge on both sides."""
    inside: Floats = 1 - step(np.abs(value), half, width)
    return inside


def specks(noise: Noise, point: Floats, frequency: float, share: float) -> Floats:
    """(R,) 0..1: small round spots on about `share` of the surface."""
    return step(noise(point, frequency), 1 - 0.6 * math.sqrt(share), 0.08)


def to_nearest(value: Floats) -> Floats:
    """Distance to the nearest whole number."""
    return np.abs(value - np.round(value))
