"""Registry of methods, readers and formats. To add a plugin, write its module and add a line here.

Other packages register plugins by the entry points `lumigraph.methods`, `lumigraph.readers` and `lumigraph.formats`,
each naming a module with the same interface. Plugin modules are imported on first use.
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
    """Interface of a module that trains a field from a capture."""

    NAME: str
    Config: type[Any]  # a dataclass

    def start(self, capture: Capture, config: Any, budget: Budget, device: str = "cpu") -> Training: ...
    def resume(
        self, capture: Capture, config: Any, state: dict[str, Tensor], budget: Budget, device: str = "cpu"
    ) -> Training: ...
    def load(self, state: dict[str, Tensor]) -> Field: ...


class Reader(Protocol):
    """Interface of a module that reads one disk layout of posed photos."""

    NAME: str

    def accepts(self, path: Path) -> bool: ...
    def read(self, path: Path) -> Capture: ...


class Format(Protocol):
    """Interface of a module that reads or writes a file format of assets; `read` or `write` may be absent.

    `write` receives coordinates with the up axis UP in units of METRES. If Options (a dataclass) has a field `up` ("y"
    or "z") or `unit` ("m", "cm", "mm"), the option overrides the default, and the file records it. A module that shares
    its suffix with another has `accepts(path)` to tell their files apart. READS lists suffixes that are read and not
    written. Modules with `stream(path)` and `write_stream(stream, path, options)` support scenes larger than memory
    (formats.chunked).
    """

    NAME: str
    SUFFIXES: tuple[str, ...]
    HOLDS: tuple[type, ...]  # of Splats, Points, Voxels and Mesh; the most common use first
    UP: str  # "+y", "+z", or "-y" for splats in training coordinates
    METRES: float | None  # per unit; None if the format does not define it
    Options: type[Any]

    def read(self, path: Path) -> Any: ...
    def write(self, asset: Any, path: Path, options: Any = ...) -> None: ...


def methods() -> list[str]:
    return _names("methods", METHODS)


def method(name: str) -> Method:
    """Import the method `name`. Raises RunError, which lists the methods, if it does not exist."""
    if name not in methods():
        raise RunError(f"there is no method {name!r}; these exist: {', '.join(methods())}")
    return cast(Method, _module("methods", METHODS, name))


def reader_for(path: Path) -> Reader | None:
    """Return the first reader that accepts `path`, or None."""
    for name in _names("readers", READERS):
        reader = cast(Reader, _module("readers", READERS, name))
        if reader.accepts(path):
            return reader
    return None


def capture_reader(path: Path) -> Reader:
    """Return the reader for `path`. Raises CaptureError, which lists the readers, if none accepts it."""
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
    """Import all formats, in a fixed order."""
    return [cast(Format, _module("formats", FORMATS, name)) for name in _names("formats", FORMATS)]


def format_for(path: Path, kind: type | None = None) -> Format:
    """Return the format that writes `path` by suffix and holds `kind`. Raises FormatError, which lists alternatives."""
    candidates = writers(path.name)
    if not candidates:
        target = f"{path.suffix!r} files" if path.suffix else f"{path}, which has no suffix"
        raise FormatError(f"cannot write {target}; formats that can be written: {', '.join(suffixes())}")
    for file_format in candidates:
        if kind is None or kind in file_format.HOLDS:
            return file_format
    assert kind is not None
    alternatives = ", ".join(
        suffix for file_format in formats() if kind in file_format.HOLDS for suffix in file_format.SUFFIXES
    )
    raise FormatError(f"{candidates[0].NAME} ({path.name}) holds no {kind.__name__.lower()}; these do: {alternatives}")


def asset_reader(path: Path) -> Format:
    """Return the format that reads the file. Raises FormatError, which lists the readable suffixes, if none does."""
    readers = [file_format for file_format in _of_suffix(path.name) if hasattr(file_format, "read")]
    if not readers:
        readable = ", ".join(
            dict.fromkeys(
                suffix for file_format in formats() if hasattr(file_format, "read") for suffix in file_format.SUFFIXES
            )
        )
        raise FormatError(f"{path}: no format of this suffix can be read; these can: {readable}")
    return next(
        (file_format for file_format in readers if hasattr(file_format, "accepts") and file_format.accepts(path)),
        readers[0],
    )


def suffixes() -> list[str]:
    """Return the suffixes of all formats that can be written."""
    return list(
        dict.fromkeys(
            suffix for file_format in formats() if hasattr(file_format, "write") for suffix in file_format.SUFFIXES
        )
    )


def writers(name: str) -> list[Format]:
    """Return the formats that write files of this name."""
    return [
        file_format
        for file_format in _of_suffix(name)
        if hasattr(file_format, "write") and name.lower().endswith(file_format.SUFFIXES)
    ]


def _of_suffix(name: str) -> list[Format]:
    """Return the formats of the longest matching suffix: .compressed.ply before .ply."""
    name = name.lower()
    suffix_formats = [
        (suffix, file_format)
        for file_format in formats()
        for suffix in (*file_format.SUFFIXES, *getattr(file_format, "READS", ()))
    ]
    candidates = [(len(suffix), file_format) for suffix, file_format in suffix_formats if name.endswith(suffix)]
    longest = max((length for length, _ in candidates), default=0)
    return [file_format for length, file_format in candidates if length == longest]


def _names(kind: str, builtin: Mapping[str, str]) -> list[str]:
    return [*builtin, *(point.name for point in _plugin_entry_points(kind) if point.name not in builtin)]


def _plugin_entry_points(kind: str) -> Iterator[EntryPoint]:
    """Yield entry points of other packages in a fixed order, so that the choice of a reader is deterministic."""
    yield from sorted(entry_points(group=f"lumigraph.{kind}"), key=lambda point: (point.name, point.value))


def _module(kind: str, builtin: Mapping[str, str], name: str) -> object:
    """Import the module of a name. Other packages cannot shadow built-in modules."""
    if name in builtin:
        return import_module(builtin[name])
    point = next(point for point in _plugin_entry_points(kind) if point.name == name)
    try:
        return point.load()
    except Exception as error:
        raise RunError(
            f"the plug-in {name!r} ({point.value}) could not be imported: {type(error).__name__}: {error}; "
            "update or uninstall its package"
        ) from error
