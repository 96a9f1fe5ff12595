"""A run, shown while it moves: the process behind a live view. While the run is being trained, the newest field is
shown as soon as it is saved."""

from __future__ import annotations

from pathlib import Path

from lumigraph.live.encoders import initial_camera
from lumigraph.live.renderer import inherited_socket, run_renderer
from lumigraph.live.session import Session
from lumigraph.scene.field import Field
from lumigraph.studio.run import FIELD, Run
from lumigraph.studio.training import load_field

LARGEST = 640  # pixels of a frame's longer side, until somebody asks for more


def view(path: Path) -> None:
    """Shows the run at `path` on the socket that the environment names, until it closes. Raises RunError."""
    run = Run(path)
    cameras, held_out = run.cameras()
    first = int(held_out.int().argmax())
    width, height = cameras.size(first)
    scale = min(1.0, LARGEST / max(width, height))
    size = (max(16, round(width * scale)), max(16, round(height * scale)))
    session = Session(initial_camera(cameras, first), size, method=run.config.method)
    shown = (0, 0)

    def stamp() -> tuple[int, int]:
        """Of the file as it is: it is replaced, never rewritten."""
        try:
            status = (path / FIELD).stat()
        except FileNotFoundError:
            return (0, 0)
        return (status.st_ino, status.st_mtime_ns)

    def load() -> Field:
        nonlocal shown
        shown = stamp()
        return load_field(run, "auto")[0]

    def over_white() -> bool:
        card = run.field_card()
        return card is not None and card.over_white

    run_renderer(inherited_socket(), load, lambda: stamp() != shown, session, over_white=over_white)
