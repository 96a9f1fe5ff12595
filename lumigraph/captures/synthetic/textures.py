"""Procedural textures: colour as a function of the surface point.

Photogrammetry needs surfaces that look different everywhere and at every scale, so no texture is plain: each ends in
several octaves of noise. Points are in metres, in the shape's local frame; x and y are chart coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from lumigraph.captures.synthetic.noise import (
    Noise,
    distance_to_integer,
    linear_step,
    mix,
    ramp,
    rgb,
    shade,
    speckle_mask,
    stripe_mask,
)
from lumigraph.captures.synthetic.shapes import Paint
from lumigraph.captures.synthetic.vectors import RING, Floats, bilinear, unit


def wood(noise: Noise, light: int, dark: int, plank: float, grain: float = 1.0) -> Paint:
    """Boards of width `plank` along local x, each cut from another part of one tree."""

    def paint(point: Floats, x: Floats, y: Floats) -> Floats:
        number = np.floor(point[1] / np.float32(plank))
        tree_point = np.stack([point[0] + number * np.float32(3.7), point[1] + number * np.float32(1.3), point[2]])
        bend = noise(tree_point, (2.2, 9, 9), 2)
        rings = np.sin((tree_point[1] * 60 + bend * 16 + 2 * number) * np.float32(2.2))
        rings = rings * np.float32(0.5) + np.float32(0.5)
        fibre = noise(tree_point, (22, 420 * grain, 420 * grain), 2, 0.6)
        pores = linear_step(noise(tree_point * np.float32(1.01), (45, 700, 700)), 0.74, 0.12)
        own_noise = noise(np.broadcast_to(number, point.shape), 0.73) - np.float32(0.5)
        tone = 0.25 * rings + 0.5 * fibre + 0.38 * noise(tree_point, (14, 28, 28), 4) + 0.4 * own_noise
        colour = ramp(tone, (0.25, dark), (0.95, light))
        colour = shade(colour, 1 - 0.45 * pores - 0.25 * speckle_mask(noise, point, 160, 0.03))
        joint = distance_to_integer(point[1] / np.float32(plank)) * np.float32(plank)
        return shade(colour, 0.35 + 0.65 * linear_step(joint, 0.0018, 0.0018))

    return paint


def marble_tiles(noise: Noise, side: float) -> Paint:
    """The black and white floor of a Dutch interior, laid diagonally."""

    def paint(point: Floats, x: Floats, y: Floats) -> Floats:
        a = (point[0] + point[1]) / np.float32(side * math.sqrt(2))
        b = (point[0] - point[1]) / np.float32(side * math.sqrt(2))
        piece = np.stack([point[0] + np.floor(a) * np.float32(1.7), point[1] + np.floor(b) * np.float32(2.3), point[2]])
        vein = np.clip(1 - np.abs(noise(piece, 2.5, 5, 0.6) - 0.5) * 9, 0, 1)
        cloud = noise(piece, 6, 5, 0.65)
        white = shade(ramp(cloud, (0.25, 0xB3A893), (0.75, 0xEFE6D6)), 1 - 0.45 * vein)
        black = ramp(cloud, (0.25, 0x15171A), (0.75, 0x3A3D42)) + (0.12 * vein**2)[:, None]
        joint = np.minimum(distance_to_integer(a), distance_to_integer(b)) * np.float32(side)
        colour = mix(black, white, (np.floor(a) + np.floor(b)) % 2)
        return shade(colour, 0.4 + 0.6 * linear_step(joint, 0.004, 0.004))

    return paint


def canvas(noise: Noise) -> Paint:
    """A painter's backdrop: overlapping clouds of olive, umber and slate, darker towards floor and ceiling."""
    warm, cool = np.array([1.35, 0.90, 0.66], np.float32), np.array([0.72, 0.95, 1.12], np.float32)

    def paint(point: Floats, x: Floats, y: Floats) -> Floats:
        drift = np.stack([noise(point + np.float32(k), 1.9, 3) for k in range(3)]) - np.float32(0.5)
        warped_point = point + np.float32(0.5) * drift
        cloud = noise(warped_point, 1.15, 6, 0.58)
        dabs = noise(point + np.float32(1.1) * drift, 7, 4, 0.65)
        tone = 1.9 * (cloud - 0.5) + 0.75 * (dabs - 0.5) + 0.52
        colour = ramp(tone, (0.0, 0x1F211E), (0.3, 0x3F443C), (0.55, 0x6C6A54), (0.8, 0x988863), (1.05, 0xC4A878))
        colour = mix(colour, colour * warm, linear_step(noise(warped_point + 9, 1.1, 3), 0.56, 0.25))
        colour = mix(colour, colour * cool, linear_step(noise(warped_point + 17, 1.3, 3), 0.60, 0.2))
        weave = 0.78 + 0.44 * noise(point, 70, 2, 0.8) - 0.35 * speckle_mask(noise, point, 26, 0.06)
        return shade(colour, weave * (1 - 1.65 * (y - np.float32(0.55)) ** 2))

    return paint


def globe_map(noise: Noise) -> Paint:
    """An old globe of a fictional world: seas, mountains, a graticule and a few names."""
    name_mask = _name_mask(
        {"OCEANUS": (0.18, 0.44), "TERRA NOVA": (0.52, 0.37), "MARE LUCIS": (0.72, 0.58), "IGNOTA": (0.36, 0.66)}
    )

    def paint(point: Floats, x: Floats, y: Floats) -> Floats:
        direction = unit(point)
        drift = np.stack([noise(direction + np.float32(k), 3.1, 3) for k in (0.3, 1.7, 2.9)]) - np.float32(0.5)
        warped_direction = direction + np.float32(0.22) * drift
        shore = noise(warped_direction, 1.55, 6, 0.55) - np.float32(0.52)
        fine = noise(direction, 42, 4, 0.6)
        sea = ramp(shore * 4 + 0.5 * (fine - 0.5), (-0.7, 0x1F5566), (-0.25, 0x3C7F88), (0.0, 0x8DB9AC))
        heights = ((-0.1, 0x7D8B4A), (0.3, 0xB9A35B), (0.6, 0xB07A42), (0.95, 0x7C4A2B), (1.6, 0xEFE3C8))
        land = ramp(shore * 6 + 1.1 * (fine - 0.5) + 0.3, *heights)
        colour = mix(sea, land, linear_step(shore, 0, 0.006))
        ice = linear_step(np.abs(direction[2]) + 0.12 * (noise(warped_direction, 6, 3) - 0.5), 0.93, 0.01)
        colour = mix(colour, ramp(fine, (0.2, 0xC9CBBE), (0.8, 0xF3EEDF)), ice)
        colour = mix(colour, rgb(0x4A3320), 0.75 * stripe_mask(shore, 0.005, 0.005))
        narrowing = np.maximum(np.sin(y * np.float32(math.pi)), np.float32(0.05))  # meridians meet at the poles
        line = np.minimum(distance_to_integer(x * 24) * narrowing, distance_to_integer(y * 12))
        colour = mix(colour, colour * np.float32(0.5), stripe_mask(line, 0.016, 0.012))
        colour = mix(colour, rgb(0xA8322A), stripe_mask(y * 12 - 6, 0.055, 0.03))
        return mix(colour, rgb(0x2C1D12), 0.9 * bilinear(name_mask, x, y, RING))

    return paint


def _name_mask(places: dict[str, tuple[float, float]]) -> Floats:
    """Equirectangular mask (H, W), 0..1, of names, each centred at its chart coordinates."""
    rows, columns = 768, 1536
    ink = np.zeros((rows, columns), np.uint8)
    for text, (x, y) in places.items():
        (w, h), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_COMPLEX, 1, 2)
        text_origin = (int(x * columns - w / 2), int(y * rows + h / 2))
        cv2.putText(ink, text, text_origin, cv2.FONT_HERSHEY_COMPLEX, 1, 255, 2, cv2.LINE_AA)
    return ink.astype(np.float32) / np.float32(255)


def porcelain(noise: Noise, height: float) -> Paint:
    """White glaze with cobalt bands, a frieze of waves, painted leaves, a twisted neck and fine cracks."""
    bands = [(0.02, 0.055), (0.09, 0.10), (0.30, 0.325), (0.345, 0.352), (0.63, 0.637), (0.655, 0.69), (0.955, 1.1)]

    def paint(point: Floats, x: Floats, y: Floats) -> Floats:
        h = point[2] / np.float32(height) + np.float32(0.012) * (noise(point, 30, 2) - 0.5)
        ink = np.zeros_like(h)
        for low, high in bands:
            ink = np.maximum(ink, linear_step(h, low, 0.006) * (1 - linear_step(h, high, 0.006)))
        swing = np.float32(0.045) * np.sin(x * np.float32(18 * math.pi))
        ink = np.maximum(ink, stripe_mask(h - 0.20 - swing, 0.012, 0.008))
        ink = np.maximum(ink, stripe_mask(h - 0.20 + swing, 0.006, 0.008))
        middle = distance_to_integer(x * 11) * 2
        leaf = np.abs(h - 0.49) / 0.115 + 1.35 * middle + 0.5 * (noise(point, 60, 3) - 0.5)
        vein = stripe_mask(middle - 0.04 - 0.3 * distance_to_integer((h - 0.49) * 46), 0.035, 0.05)
        ink = np.maximum(ink, (1 - linear_step(leaf, 0.92, 0.05)) * (1 - vein))
        twist = stripe_mask(distance_to_integer(x * 16 + h * 14), 0.13, 0.04) * stripe_mask(h - 0.82, 0.105, 0.002)
        ink = np.maximum(ink, twist) * (0.62 + 0.5 * noise(point, 45, 4, 0.6))
        glaze = ramp(noise(point, 60, 4), (0.2, 0xD9D8CC), (0.8, 0xF4F1E6))
        crack = np.minimum(np.abs(noise(point, 90, 2) - 0.5), np.abs(noise(point + 1, 130, 2) - 0.5))
        glaze = shade(glaze, 1 - 0.28 * stripe_mask(crack, 0.012, 0.012) - 0.3 * speckle_mask(noise, point, 300, 0.02))
        cobalt = ramp(noise(point, 80, 4, 0.6), (0.25, 0x122A6B), (0.75, 0x2F56B0))
        return mix(glaze, cobalt, np.clip(ink, 0, 1))

    return paint


def chessmen(noise: Noise, light: int, dark: int) -> Paint:
    """Turned wood or ivory with the grooves of the lathe."""

    def paint(point: Floats, x: Floats, y: Floats) -> Floats:
        grain = 0.6 * noise(point, (90, 90, 14), 3) + 0.5 * noise(point, (700, 700, 60), 2)
        groove = stripe_mask(distance_to_integer(y * 57 + noise(point, 60)), 0.1, 0.05)
        light_share = 1 - 0.14 * groove - 0.4 * speckle_mask(noise, point, 420, 0.03)
        return shade(ramp(grain, (0.25, dark), (0.85, light)), light_share)

    return paint


def chess_board(noise: Noise, half_playing_size: float) -> Paint:
    """Eight by eight squares of maple and walnut with own grains, framed beyond +-`half_playing_size` metres."""
    maple, walnut = wood(noise, 0xE9CFA0, 0xB98A55, 9.0, 0.8), wood(noise, 0x7A4E30, 0x3A2114, 9.0, 0.8)
    frame = wood(noise, 0x5B3322, 0x2C160E, 9.0)

    def paint(point: Floats, x: Floats, y: Floats) -> Floats:
        i, j = np.floor(point[:2] / np.float32(half_playing_size / 4))
        square_point = np.stack([point[0] + i * np.float32(0.71), point[1] + j * np.float32(0.53) + i * 2, point[2]])
        colour = mix(walnut(square_point, x, y), maple(square_point, x, y), (i + j) % 2)
        edge = np.maximum(np.abs(point[0]), np.abs(point[1]))
        along = np.where(np.abs(point[1]) > np.abs(point[0]), point, point[[1, 0, 2]])
        colour = mix(colour, frame(along, x, y), linear_step(edge, half_playing_size, 0.0012))
        return mix(colour, rgb(0xC9A24B), stripe_mask(edge - np.float32(1.012 * half_playing_size), 0.0014, 0.001))

    return paint


def book(noise: Noise, half: Floats, cover: int, ink: int, title: Sequence[str]) -> Paint:
    """Cloth covers, printed on top and on the spine (local -y), and page edges; `half` as of a Box."""
    width, depth, thick = (float(side) for side in half[:, 0])
    top, spine = _page(title, depth / width), _page(title[:1], thick / width)

    def paint(point: Floats, x: Floats, y: Floats) -> Floats:
        weave = 0.5 * np.sin(point[0] * 2600) * np.sin(point[1] * 2600) + noise(point, 500, 2)
        wear = noise(point, 28, 5, 0.6)
        cloth = shade(rgb(cover), 0.62 + 0.42 * wear + 0.16 * weave)
        cloth = mix(cloth, ramp(wear, (0, 0x8A7A60), (1, 0xD8C9A8)), 0.55 * linear_step(wear, 0.70, 0.06))
        across, back, up = point / (2 * half)
        on_top, on_spine = bilinear(top, across + 0.5, 0.5 - back), bilinear(spine, across + 0.5, 0.5 - up)
        print_mask = np.where(up > 0.4995, on_top, np.where(back < -0.4995, on_spine, 0))
        cloth = mix(cloth, rgb(ink), print_mask * (0.6 + 0.4 * noise(point, 300, 2)))
        leaves = noise(point, (40, 40, 2600), 2, 0.7) + 0.3 * (noise(point, 35, 4) - 0.5)
        pages = (np.abs(up) < 0.43) & ((np.abs(across) > 0.4995) | (back > 0.4995))
        return mix(cloth, ramp(leaves, (0.2, 0xA28F6B), (0.8, 0xEADFC4)), pages.astype(np.float32))

    return paint


def _page(lines: Sequence[str], aspect: float) -> Floats:
    """Mask (H, W), 0..1, of lines of text in a double frame; `aspect` is height over width. Line 1 is the largest."""
    width, font = 768, cv2.FONT_HERSHEY_TRIPLEX
    height = round(width * aspect)
    page = np.zeros((height, width), np.uint8)
    inset = round(height * 0.07)
    for corner in (inset, round(1.6 * inset)):
        far = (width - corner, height - corner)
        cv2.rectangle(page, (corner, corner), far, 255, max(1, round(height / 110)), cv2.LINE_AA)
    room = height - 4 * inset
    for i, line in enumerate(lines):
        (w, h), _ = cv2.getTextSize(line, font, 1, 1)
        scale = min(0.7 * width / w, 0.62 * room / len(lines) / h) * (1 if i == 0 else 0.62)
        text_origin = (round((width - w * scale) / 2), round(2 * inset + room * (i + 0.5) / len(lines) + h * scale / 2))
        cv2.putText(page, line, text_origin, font, scale, 255, max(1, round(2 * scale)), cv2.LINE_AA)
    return page.astype(np.float32) / np.float32(255)


def rug(noise: Noise, half: Floats) -> Paint:
    """A woven runner of half sizes `half`: teal with diamonds, a red border with teeth, cream lines, threads."""
    long, wide = (np.float32(side) for side in half[:2, 0])

    def paint(point: Floats, x: Floats, y: Floats) -> Floats:
        px = point[0] + np.float32(0.006) * (noise(point, 25, 2) - 0.5)  # irregular, as woven by hand
        py = point[1] + np.float32(0.006) * (noise(point + 3, 25, 2) - 0.5)
        a, b = (px + py) / np.float32(0.075), (px - py) / np.float32(0.075)
        diamond = 0.5 - np.minimum(distance_to_integer(a), distance_to_integer(b))
        own_noise = noise(np.stack([np.floor(a), np.floor(b), np.zeros_like(a)]), 0.77)
        field = ramp(own_noise, (0.1, 0x1E5F66), (0.5, 0x2A7C79), (0.9, 0x17484F))
        heart = ramp(own_noise, (0.2, 0xD9B65C), (0.5, 0xE8D6A6), (0.8, 0xC9683B))
        field = mix(field, heart, 1 - linear_step(diamond, 0.20, 0.05))
        field = mix(field, rgb(0xE3D3AE), linear_step(diamond, 0.45, 0.04) * (1 - linear_step(diamond, 0.485, 0.02)))
        to_end, to_side = long - np.abs(px), wide - np.abs(py)
        inset = np.minimum(to_end, to_side)
        tooth = 0.5 - distance_to_integer(np.where(to_end < to_side, py, px) / np.float32(0.03))
        border = mix(rgb(0x8F2F27), rgb(0xE3C98F), 1 - linear_step(np.abs(inset - 0.028) + 0.03 * tooth, 0.014, 0.002))
        colour = mix(border, field, linear_step(inset, 0.055, 0.002))
        line = np.minimum(np.abs(inset - 0.055), np.abs(inset - 0.006))
        colour = mix(colour, rgb(0xE9DDBE), stripe_mask(line, 0.0025, 0.0015))
        threads = 0.2 * np.sin(point[0] * 1900) * np.sin(point[1] * 1900) + 0.5 * noise(point, (500, 160, 300), 3, 0.7)
        return shade(colour, 0.55 + threads + 0.35 * (noise(point, 9, 3) - 0.5))

    return paint


def orange_peel(noise: Noise, radius: float) -> Paint:
    """Pores, patches of lighter and darker colour, and the scar of the stem."""

    def paint(point: Floats, x: Floats, y: Floats) -> Floats:
        pores = noise(point, 620, 2, 0.7)
        tone = 0.5 * noise(point, 22, 3) + 0.5 * pores
        colour = ramp(tone, (0.2, 0xC9560E), (0.55, 0xEE8A1C), (0.85, 0xF7AE45))
        stem = linear_step(point[2] / np.float32(radius) + 0.05 * (noise(point, 400, 2) - 0.5), 0.98, 0.01)
        colour = mix(colour, ramp(pores, (0.2, 0x3E4A1A), (0.8, 0x86904A)), stem)
        return shade(colour, 1 - 0.5 * speckle_mask(noise, point, 330, 0.025))

    return paint


def doughnut(noise: Noise, seed: int) -> Paint:
    """Golden dough, pink icing with a wavy edge above its middle, sprinkles."""
    sprinkles = _sprinkles(seed)

    def paint(point: Floats, x: Floats, y: Floats) -> Floats:
        dough = ramp(noise(point, 70, 5, 0.6), (0.2, 0x9C5A20), (0.55, 0xCB8A40), (0.85, 0xE6BC78))
        dough = shade(dough, 1 - 0.35 * speckle_mask(noise, point, 380, 0.05))
        icing = ramp(noise(point, 90, 4), (0.2, 0xD96C93), (0.8, 0xF3A3BC))
        strokes = bilinear(sprinkles, x, y, RING)
        icing = icing * (1 - strokes[:, 3:]) + strokes[:, :3]
        return mix(dough, icing, linear_step(point[2] - 0.012 * (noise(point, 55, 2) - 0.5), 0.002, 0.0012))

    return paint


def _sprinkles(seed: int) -> Floats:
    """A chart (H, W, 4) of short strokes in several colours, premultiplied alpha."""
    rows, columns = 448, 768
    rng = np.random.default_rng(seed)
    palette = [rgb(code) for code in (0xFFFFFF, 0xF2C230, 0x4FB6C9, 0x7BC24A, 0x8A4FBF, 0xE5532D)]
    chart = np.zeros((rows, columns, 4), np.float32)
    for k in range(130):
        middle, angle = rng.random(2) * (columns, rows), rng.random() * math.pi
        reach = np.array([math.cos(angle) * columns / 68, math.sin(angle) * rows / 34])
        stroke = np.zeros((rows, columns), np.float32)
        ends = [(int(px), int(py)) for px, py in (middle - reach, middle + reach)]
        cv2.line(stroke, ends[0], ends[1], 1.0, round(columns / 90))
        chart[stroke > 0] = (*palette[k % len(palette)], 1)
    return np.asarray(cv2.GaussianBlur(chart, (0, 0), 0.8), np.float32)


def brass(noise: Noise) -> Paint:
    """Old brass, spotted and brushed."""

    def paint(point: Floats, x: Floats, y: Floats) -> Floats:
        tone = 0.5 * noise(point, 60, 4) + 0.5 * noise(point, (300, 300, 40), 3, 0.7)
        colour = ramp(tone, (0.25, 0x5C3F14), (0.55, 0xA87B2C), (0.85, 0xDDB765))
        return shade(colour, 1 - 0.4 * speckle_mask(noise, point, 260, 0.05))

    return paint


def plate(noise: Noise) -> Paint:
    """Cream ware with a blue rim and a ring of dots."""

    def paint(point: Floats, x: Floats, y: Floats) -> Floats:
        r = np.sqrt(point[0] ** 2 + point[1] ** 2)
        colour = ramp(noise(point, 70, 5, 0.6), (0.2, 0xCFC7B4), (0.8, 0xF1ECDD))
        dots = np.hypot((0.5 - distance_to_integer(x * 36)) * np.float32(0.0183), r - np.float32(0.105))
        ink = np.maximum(stripe_mask(r - 0.118, 0.0022, 0.001), stripe_mask(dots, 0.003, 0.001))
        return shade(mix(colour, rgb(0x35608F), ink), 1 - 0.35 * speckle_mask(noise, point, 330, 0.03))

    return paint
