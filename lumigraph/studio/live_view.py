"""The renderer process of a live view. It reloads the field of a run in training after each save."""

from __future__ import annotations

from pathlib import Path

from lumigraph.live.encoders import initial_camera
from lumigraph.live.renderer import inherited_socket, run_renderer
from lumigraph.live.session import Session
from lumigraph.scene.field import Field
from lumigraph.studio.run import FIELD, Run
from lumigraph.studio.training import load_field

MAX_INITIAL_SIDE_PX = 640  # longer side of a frame until a viewer requests another size


def run_live_view(path: Path) -> None:
    """Render the run at `path` for the socket named by the environment until the socket closes. Raises RunError."""
    run = Run(path)
    cameras, held_out = run.cameras()
    first = int(held_out.int().argmax())
    width, height = cameras.size(first)
    scale = min(1.0, MAX_INITIAL_SIDE_PX / max(width, height))
    size = (max(16, round(width * scale)), max(16, round(height * scale)))
    session = Session(initial_camera(cameras, first), size, method=run.config.method)
    loaded_stamp = (0, 0)

    def stamp() -> tuple[int, int]:
        """Identify the current field file. Each save replaces the file, so its inode and time change."""
        try:
            status = (path / FIELD).stat()
        except FileNotFoundError:
            return (0, 0)
        return (status.st_ino, status.st_mtime_ns)

    def load() -> Field:
        nonlocal loaded_stamp
        loaded_stamp = stamp()
        return load_field(run, "auto")[0]

    def over_white() -> bool:
        card = run.field_card()
        return card is not None and card.over_white

    run_renderer(inherited_socket(), load, lambda: stamp() != loaded_stamp, session, over_white=over_white)
