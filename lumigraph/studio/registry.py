"""Every method, reader and format by name. To add one: write its module, add its line here.

Other packages add theirs through the entry points `lumigraph.methods`, `lumigraph.readers` and `lumigraph.formats`,
each naming a module of the same form. Nothing is imported before it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from lumigraph.scene.errors import CaptureError, FormatError, RunError

if TYPE_CHECKING:
    from torch import Tensor

    from lumigraph.methods.train import Budget
    from lumigraph.scene.capture import Capture
    from lumigraph.scene.field import Field, Training

METHODS = {
    "splat": "lumigraph.methods.splat",
    "ngp": "lumigraph.methods.ngp",
    "nerf": "lumigraph.methods.nerf",
}
DEFAULT_METHOD = "splat"
READERS = {
    "transforms": "lumigraph.captures.readers.transforms",
    "blender": "lumigraph.captures.readers.blender",
    "colmap": "lumigraph.captures.readers.colmap",
    "llff": "lumigraph.captures.readers.llff",
}
FORMATS = {
    "ply": "lumigraph.formats.ply",
    "mesh_ply": "lumigraph.formats.mesh_ply",
    "packed_ply": "lumigraph.formats.compressed_ply",
    "splat": "lumigraph.formats.dot_splat",
    "spz": "lumigraph.formats.spz",
    "sog": "lumigraph.formats.sog",
    "ksplat": "lumigraph.formats.ksplat",
    "gltf": "lumigraph.formats.gltf.gltf_format",
    "obj": "lumigraph.formats.obj",
    "stl": "lumigraph.formats.stl",
    "usd": "lumigraph.formats.usd",
    "fbx": "lumigraph.formats.fbx",
    "xyz": "lumigraph.formats.xyz",
    "las": "lumigraph.formats.las",
    "tiles": "lumigraph.formats.tiles3d",
    "voxels": "lumigraph.formats.npz",
}


class Method(Protocol):
    """A way of learning a field from a capture: a module with these names."""

    NAME: str
    Config: type[Any]  # a dataclass

    def start(self, capture: Capture, config: Any, budget: Budget, device: str = "cpu") -> Training: ...
    def resume(
        self, capture: Capture, config: Any, state: dict[str, Tensor], budget: Budget, device: str = "cpu"
    ) -> Training: ...
    def load(self, state: dict[str, Tensor]) -> Field: ...


class Reader(Protocol):
    """A form in which posed photos lie on disk."""

    NAME: str

    def accepts(self, path: Path) -> bool: ...
    def read(self, path: Path) -> Capture: ...


class Format(Protocol):
    """A file format of finished assets: a module with these names, which may lack `read` or `write`.

    `write` is given coordinates as UP and METRES say. Where Options (a dataclass) has a field `up` ("y" or "z") or
    `unit` ("m", "cm", "mm"), those say it instead, and the file tells its readers. A module that shares its suffix with
    another has `accepts(path)`, which tells their files apart; READS are names that are read and not written. With
    `stream(path)` and `write_stream(stream, path, options)` too, scenes larger than memory pass (formats.streams).
    """

    NAME: str
    SUFFIXES: tuple[str, ...]
    HOLDS: tuple[type, ...]  # of Splats, Points, Voxels and Mesh; what people most often want of it first
    UP: str  # "+y", "+z" or, of splats as they were trained, "-y"
    METRES: float | None  # in one unit; None where the format does not say
    Options: type[Any]

    def read(self, path: Path) -> Any: ...
    def write(self, asset: Any, path: Path, options: Any = ...) -> None: ...


def methods() -> list[str]:
    return _names("methods", METHODS)


def method(name: str) -> Method:
    """Raises RunError naming those that exist."""
    if name not in methods():
        raise RunError(f"there is no method {name!r}; these exist: {', '.join(methods())}")
    return cast(Method, _module("methods", METHODS, name))


def reader_for(path: Path) -> Reader | None:
    """The first reader that accepts `path`, or None when no reader knows this form."""
    for name in _names("readers", READERS):
        reader = cast(Reader, _module("readers", READERS, name))
        if reader.accepts(path):
            return reader
    return None


def capture_reader(path: Path) -> Reader:
    """As `reader_for`; raises CaptureError saying what would have been accepted."""
    if not path.exists():
        raise CaptureError(f"{path} does not exist")
    reader = reader_for(path)
    if reader is None:
        raise CaptureError(
            f"{path} is not a capture that can be read ({', '.join(_names('readers', READERS))}); "
            f"for photos or a video without camera poses run `lumigraph pose {path} -o CAPTURE` first"
        )
    return reader


def formats() -> list[Format]:
    """All of them, in a fixed order."""
    return [cast(Format, _module("formats", FORMATS, name)) for name in _names("formats", FORMATS)]


def format_for(path: Path, kind: type | None = None) -> Format:
    """The format that writes the suffix of `path`, and holds `kind`. Raises FormatError naming what there is."""
    fitting = writers(path.name)
    if not fitting:
        wanted = f"{path.suffix!r} files" if path.suffix else f"{path}, which has no suffix"
        raise FormatError(f"cannot write {wanted}; formats that can be written: {', '.join(suffixes())}")
    for one in fitting:
        if kind is None or kind in one.HOLDS:
            return one
    assert kind is not None
    others = ", ".join(suffix for one in formats() if kind in one.HOLDS for suffix in one.SUFFIXES)
    raise FormatError(f"{fitting[0].NAME} ({path.name}) holds no {kind.__name__.lower()}; these do: {others}")


def asset_reader(path: Path) -> Format:
    """The format that reads a file. Raises FormatError naming what can be read."""
    readers = [one for one in _of_suffix(path.name) if hasattr(one, "read")]
    if not readers:
        known = ", ".join(dict.fromkeys(suffix for one in formats() if hasattr(one, "read") for suffix in one.SUFFIXES))
        raise FormatError(f"{path}: no format of this suffix can be read; these can: {known}")
    return next((one for one in readers if hasattr(one, "accepts") and one.accepts(path)), readers[0])


def suffixes() -> list[str]:
    """Of all formats that can be written."""
    return list(dict.fromkeys(suffix for one in formats() if hasattr(one, "write") for suffix in one.SUFFIXES))


def writers(name: str) -> list[Format]:
    """Those that write files of this name."""
    return [one for one in _of_suffix(name) if hasattr(one, "write") and name.lower().endswith(one.SUFFIXES)]


def _of_suffix(name: str) -> list[Format]:
    """Those of the longest suffix that fits: .compressed.ply before .ply."""
    name = name.lower()
    known = [(suffix, one) for one in formats() for suffix in (*one.SUFFIXES, *getattr(one, "READS", ()))]
    fitting = [(len(suffix), one) for suffix, one in known if name.endswith(suffix)]
    longest = max((length for length, _ in fitting), default=0)
    return [one for length, one in fitting if length == longest]


def _names(kind: str, own: Mapping[str, str]) -> list[str]:
    return [*own, *(point.name for point in _foreign(kind) if point.name not in own)]


def _foreign(kind: str) -> Iterator[EntryPoint]:
    """Entry points of other packages, in a fixed order: which reader is asked first must not depend on the disk."""
    yield from sorted(entry_points(group=f"lumigraph.{kind}"), key=lambda point: (point.name, point.value))


def _module(kind: str, own: Mapping[str, str], name: str) -> object:
    """Import the module behind a name; one of ours cannot be shadowed by another package."""
    if name in own:
        return import_module(own[name])
    point = next(point for point in _foreign(kind) if point.name == name)
    try:
        return point.load()
    except Exception as error:
        raise RunError(
            f"the plug-in {name!r} ({point.value}) could not be imported: {type(error).__name__}: {error}; "
            "update or uninstall the package that brings it"
        ) from error
