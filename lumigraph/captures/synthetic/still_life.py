"""The still life: shapes on a round table, the room around it, and the window that lights it.

Metres; the table top is z = 0. Profile outlines are in millimetres, radius and height; a repeated point is a corner.
"""

from __future__ import annotations

import math

import numpy as np

from lumigraph.captures.synthetic import textures
from lumigraph.captures.synthetic.noise import Noise, mix, ramp
from lumigraph.captures.synthetic.profiles import Profile, fit_profile
from lumigraph.captures.synthetic.raytracer import Scene, ShapeGroup, Window
from lumigraph.captures.synthetic.shapes import Box, Cylinder, Disc, Lathe, Material, Shape, Sphere
from lumigraph.captures.synthetic.vectors import Floats, unit, vector

PAWN = """0 0, 18 0, 18 0, 18.5 4, 16 8, 16.5 11, 12 15, 7.5 28, 6.5 38, 11.5 41, 6.5 44, 10.5 52, 10.5 58,
    6 64.5, 0 66"""
BISHOP = """0 0, 21 0, 21 0, 21.5 5, 18.5 10, 19 14, 13 20, 8 40, 7 58, 13.5 62, 8 66, 12.5 78, 11.5 88,
    4.5 100, 4.5 100, 5 104, 0 107"""
KING = """0 0, 24 0, 24 0, 24.5 6, 21 12, 21.5 17, 14.5 25, 9.5 50, 8.5 78, 16.5 83, 9.5 88, 12.5 100,
    18.5 122, 18.5 122, 13 126, 4.5 131, 7.5 139, 4 146, 0 148"""
VASE = """0 0, 52 0, 52 0, 54 6, 50 16, 74 70, 98 140, 96 195, 66 250, 40 285, 36 320, 46 350, 52 360, 49 362,
    32 330, 26 300, 0 290"""
PLATE = "0 0, 70 0, 70 0, 90 6, 124 14, 126 17, 123 18, 88 10, 66 6, 0 6"
FOOT = "0 0, 85 0, 85 0, 86 8, 78 14, 55 18, 22 26, 12 36, 17 45, 10 52, 10 66, 0 72"


def still_life(seed: int = 0) -> Scene:
    """Build the scene. `seed` changes grain, seas and clouds, but not the positions of shapes."""
    noise = Noise(seed)
    table = Disc(
        Material(textures.wood(noise, 0xC98F55, 0x6A3E20, 0.155), gloss=0.4, polish=0.5),
        vector(0, 0, 0),
        axes=rotation_axes(24),
        radius=1.0,
        texels=(1664, 1664),
        light_texels=(272, 272),
    )
    objects = [*_rug_and_chess(noise), *_books(noise), *_globe(noise), *_crockery(noise), *_oranges(noise), table]
    return Scene(ShapeGroup(objects, _room(noise)), ShapeGroup(objects), _window(), room_light, vector(0, 0, 0.1))


def room_light(ray: Floats) -> Floats:
    """Radiance (R, 3) from unit directions (3, R): pale ceiling, olive walls, dark floor, warmer at the window."""
    light = ramp(ray[2], (-1, 0x1C1712), (-0.05, 0x4A4336), (0.15, 0x77735F), (0.7, 0xA9AFB3), (1, 0xBFC6CC))
    warm, cool = np.array([1.15, 1.05, 0.9], np.float32), np.array([0.62, 0.72, 0.9], np.float32)
    return mix(light * cool, light * warm, 0.5 - 0.3 * ray[0] - 0.25 * ray[1])


def _window() -> Window:
    middle = vector(-1.75, -1.35, 1.95)
    facing = unit(vector(0, 0, 0.1) - middle)[:, 0]
    across = np.cross(facing, [0, 0, 1])
    across /= np.linalg.norm(across)
    sides = [
        (side * half)[:, None].astype(np.float32) for side, half in ((across, 0.5), (np.cross(across, facing), 0.65))
    ]
    return Window(middle, sides[0], sides[1], np.array([21, 18.8, 15.6], np.float32), shine=0.45)


def _room(noise: Noise) -> list[Shape]:
    floor = Material(textures.marble_tiles(noise, 0.42), gloss=0.5, polish=0.5)
    below, radius = vector(0, 0, -0.75), 2.9
    return [
        Disc(floor, below, radius=radius, texels=(1536, 1536), light_texels=(96, 96)),
        Cylinder(
            Material(textures.canvas(noise)),
            below,
            radius=radius,
            height=2.6,
            texels=(448, 3072),
            light_texels=(24, 96),
        ),
    ]


def _rug_and_chess(noise: Noise) -> list[Shape]:
    rug, board = vector(0.62, 0.27, 0.002), vector(0.235, 0.235, 0.012)
    half_playing_size, board_axes, middle = 0.21, rotation_axes(-14), vector(-0.06, -0.17, 0.016)
    cloth = Material(textures.rug(noise, rug))
    lacquer = Material(textures.chess_board(noise, half_playing_size), 0.8, 0.5)
    white = Material(textures.chessmen(noise, 0xF3E2BC, 0xB38D58), gloss=1.0)
    black = Material(textures.chessmen(noise, 0x54301F, 0x1D0F0A), gloss=1.0)
    pawn, bishop, king = (profile_from_text(text) for text in (PAWN, BISHOP, KING))
    men = [
        *((white, king, -0.5, -0.5), (white, bishop, 1.5, -1.5)),
        *((white, pawn, -1.5, -2.5), (white, pawn, 0.5, 0.5), (white, pawn, 2.5, -2.5)),
        *((black, king, 1.5, 1.5), (black, bishop, -2.5, 0.5)),
        *((black, pawn, 0.5, 2.5), (black, pawn, -1.5, 1.5), (black, pawn, 2.5, 0.5)),
    ]
    shapes: list[Shape] = [
        Box(
            cloth,
            vector(0.02, -0.06, 0.002),
            half=rug,
            axes=rotation_axes(12),
            texels=(720, 1536),
            light_texels=(136, 272),
        ),
        Box(lacquer, middle, half=board, axes=board_axes, texels=(832, 704), light_texels=(160, 128)),
    ]
    for k, (material, body, file, rank) in enumerate(men):
        foot = middle + board_axes @ vector(file * half_playing_size / 4, rank * half_playing_size / 4, 0.012)
        shapes.append(
            Lathe(material, foot, profile=body, axes=rotation_axes(37 * k), texels=(192, 192), light_texels=(48, 32))
        )
    return shapes


def _books(noise: Noise) -> list[Shape]:
    pile = [
        (0x24423A, 0xD8C68E, ["LIGHT FIELDS", "a survey"], vector(0.150, 0.110, 0.021), 17),
        (0xB98A3A, 0x2B1B10, ["RADIANCE", "a treatise"], vector(0.135, 0.100, 0.017), -8),
        (0x8A2A22, 0xEBCB85, ["LUMIGRAPH", "as seen by light"], vector(0.120, 0.085, 0.0145), 31),
    ]
    shapes: list[Shape] = []
    floor = 0.004  # the top of the rug
    for cover, ink, title, half, yaw in pile:
        thick = float(half[2, 0])
        shapes.append(
            Box(
                Material(textures.book(noise, half, cover, ink, title), gloss=0.35, polish=0.0),
                vector(0.40, -0.10, floor + thick),
                axes=rotation_axes(yaw),
                half=half,
                texels=(832, 640),
                light_texels=(96, 72),
            )
        )
        floor += 2 * thick
    return shapes


def _globe(noise: Noise) -> list[Shape]:
    middle, metal = vector(-0.36, 0.27, 0.225), Material(textures.brass(noise), gloss=3.0, polish=0.5)
    world = Material(textures.globe_map(noise), gloss=1.0)
    meridian, meridian_axes = ring(0.1545, 0.0065, cells=256), rotation_axes(-50) @ rotation_axes(0, 90)
    return [
        Sphere(world, middle, radius=0.14, axes=rotation_axes(-50, 23), texels=(768, 1536), light_texels=(96, 192)),
        Lathe(metal, middle, profile=meridian, axes=meridian_axes, texels=(64, 1024), light_texels=(24, 192)),
        Lathe(metal, vector(-0.36, 0.27, 0), profile=profile_from_text(FOOT), texels=(224, 512), light_texels=(64, 96)),
    ]


def _crockery(noise: Noise) -> list[Shape]:
    porcelain, cream = Material(textures.porcelain(noise, 0.36), gloss=1.2), Material(textures.plate(noise), gloss=0.9)
    icing, dish = Material(textures.doughnut(noise, 5), gloss=0.7, polish=0.5), vector(-0.50, -0.22, 0)
    cake, cake_position = ring(0.050, 0.026, flat=0.85), dish + vector(0.005, 0.010, 0.0281)
    return [
        Lathe(
            porcelain, vector(0.30, 0.27, 0), profile=profile_from_text(VASE), texels=(768, 960), light_texels=(96, 72)
        ),
        Lathe(cream, dish, profile=profile_from_text(PLATE, cells=256), texels=(384, 768), light_texels=(96, 96)),
        Lathe(icing, cake_position, profile=cake, texels=(448, 768), light_texels=(96, 96)),
    ]


def _oranges(noise: Noise) -> list[Shape]:
    radius = 0.042
    peel = Material(textures.orange_peel(noise, radius), gloss=0.6, polish=0.5)
    return [
        Sphere(peel, vector(*xy, radius), radius=radius, axes=axes, texels=(256, 512), light_texels=(48, 96))
        for xy, axes in (
            ((-0.30, -0.40), rotation_axes(0, 12)),
            ((0.10, 0.335), rotation_axes(70, 37)),
            ((0.185, 0.375), rotation_axes(140, 62)),
        )
    ]


def profile_from_text(text: str, cells: int = 160) -> Profile:
    points = [(float(r) / 1000, float(z) / 1000) for r, z in (pair.split() for pair in text.split(","))]
    return fit_profile(points, cells=cells)


def ring(radius: float, tube: float, flat: float = 1.0, cells: int = 160) -> Profile:
    """A torus, its tube `flat` times as high as wide. The seam of its chart is at the bottom, out of sight."""
    angles = [2 * math.pi * k / 16 - math.pi / 2 for k in range(16)]
    points = [(radius + tube * math.cos(a), flat * tube * math.sin(a)) for a in angles]
    return fit_profile(points, is_closed=True, cells=cells)


def rotation_axes(yaw: float, lean: float = 0.0) -> Floats:
    """(3, 3) axes rotated by `lean` about x and then by `yaw` about z, degrees."""
    a, b = math.radians(yaw), math.radians(lean)
    about_z = np.array([[math.cos(a), -math.sin(a), 0], [math.sin(a), math.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, math.cos(b), -math.sin(b)], [0, math.sin(b), math.cos(b)]])
    axes: Floats = (about_z @ about_x).astype(np.float32)
    return axes
