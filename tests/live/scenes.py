"""Small scenes for live views, and a process that renders one: `python -m tests.live.scenes FILE.safetensors`."""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.scenes import blob, pack
from lumigraph.live.renderer import inherited_socket, run_renderer
from lumigraph.live.session import Session
from lumigraph.methods.splat import SplatField, load
from lumigraph.scene.cameras import Cameras
from lumigraph.scene.images import Image
from tests.live.camera import CAMERA


def splat_field(count: int = 300, seed: int = 0) -> SplatField:
    params, sh_rest = pack(blob(count, (640, 480), seed=seed, radius=60.0))
    return SplatField(params, sh_rest, 3)


def write_field(field: SplatField, path: Path) -> None:
    new_path = path.with_suffix(".new")
    save_file(field.state(), new_path)
    new_path.rename(path)


class PlainField:
    """A field of one colour without depth. Its render fails if `failure` is set."""

    def __init__(self, colour: tuple[float, float, float] = (1.0, 0.0, 0.0)) -> None:
        self.colour, self.failure = colour, ""
        self.box = torch.tensor([[-1.0, -1, -1], [1, 1, 1]])

    def render(self, cameras: Cameras, background: Tensor | None = None) -> Image:
        if self.failure:
            raise RuntimeError(self.failure)
        width, height = cameras.size(0)
        return Image(torch.tensor(self.colour).expand(1, height, width, 3))

    def state(self) -> dict[str, Tensor]:
        return {}


def main(path: Path) -> None:
    loaded_mtime = 0.0

    def read() -> SplatField:
        nonlocal loaded_mtime
        loaded_mtime = path.stat().st_mtime
        return load(load_file(path))

    session = Session(CAMERA, (160, 120), method="splat")
    run_renderer(inherited_socket(), read, lambda: path.stat().st_mtime != loaded_mtime, session, poll_interval_s=0.05)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
