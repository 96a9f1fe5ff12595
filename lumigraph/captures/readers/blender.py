"""The NeRF-Blender scenes (Mildenhall et al. 2020): transforms_{train,val,test}.json next to RGBA renders.

All images share one field of view, `file_path` has no suffix, and camera axes are OpenGL's. The test split is held out,
as in all published tables; the validation split is not used.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lumigraph.captures.readers import transforms
from lumigraph.captures.readers.assemble import assemble, sort_by_name
from lumigraph.captures.readers.checked_json import read_json
from lumigraph.scene.capture import Capture
from lumigraph.scene.errors import CaptureError

NAME = "blender"
TRAIN, TEST = "transforms_train.json", "transforms_test.json"


def accepts(path: Path) -> bool:
    return (path / TRAIN).is_file()


def read(path: Path) -> Capture:
    """Read the training and test views; without a test file every eighth training view is held out.

    Raises CaptureError if a file is missing or damaged, as transforms.read does.
    """
    if not accepts(path):
        raise CaptureError(f"{path} has no {TRAIN}")
    views, notes = transforms.read_views(read_json(path / TRAIN), path / TRAIN)
    if (path / TEST).is_file():
        test_views, test_notes = transforms.read_views(read_json(path / TEST), path / TEST)
        views = [replace(view, held_out=False) for view in views] + [
            replace(view, held_out=True) for view in test_views
        ]
        notes += test_notes
    else:
        notes.append(f"there is no {TEST}: every eighth training view is held out instead")
    return assemble(sort_by_name(views), path, NAME, notes=notes)
