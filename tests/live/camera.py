"""The camera of the live-view tests."""

from lumigraph.wire.live import Camera

CAMERA = Camera(position=(3.0, -1.2, -3.2), look_at=(0.0, 0.0, 0.0), up=(0.0, -1.0, 0.0), fov=40.0)
