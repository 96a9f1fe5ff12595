"""Lumigraph: photos or a video in, a 3D scene out."""

__version__ = "0.1.0"
