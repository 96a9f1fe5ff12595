"""The settings of a method: the fields of its Config dataclass, parsed from text by their types.

Supported types: bool, int, float, str, Literal[...], tuples of these, and each of them `| None`. A number may have
bounds: `Annotated[int, Bounds(1, 8)]`. The documentation of a field is `field(metadata={"doc": ...})`, or a line
`name: text` in the docstring of the class.

A class attribute `RENAMED: ClassVar = {"old": "new"}` keeps former names readable in config.json, flags and requests.
A removed setting maps to None: it is read and ignored.
"""

from __future__ import annotations

import math
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from lumigraph.scene.errors import RunError
from lumigraph.scene.field import Bounds

NONE = type(None)
TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


@dataclass(frozen=True)
class Setting:
    """One setting: type hint, default and documentation."""

    name: str
    hint: Any
    default: object
    doc: str
    former_names: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        return describe(self.hint)


def settings(config: type[Any]) -> list[Setting]:
    """Return the settings of a Config class, in the order of its fields."""
    hints = get_type_hints(config, include_extras=True)
    settings_list = []
    for field in fields(config):
        if not field.init:
            continue
        factory = cast(Callable[[], object], field.default_factory)
        default = field.default if field.default is not MISSING else factory()
        doc = field.metadata.get("doc") or _docstring_line(config, field.name)
        former = tuple(old for old, new in renamed_settings(config).items() if new == field.name)
        settings_list.append(Setting(field.name, hints[field.name], default, doc, former))
    return settings_list


def schema(config: type[Any]) -> list[dict[str, object]]:
    """Return the settings as plain data for forms and validation by clients; `form` is JSON Schema."""
    return [
        {
            "name": s.name,
            "kind": s.kind,
            "default": s.default,
            "doc": s.doc,
            "form": form(s.hint),
            "former_names": list(s.former_names),
        }
        for s in settings(config)
    ]


def renamed_settings(config: type[Any]) -> Mapping[str, str | None]:
    """Map former to current names of the settings of a Config class; None if the setting was removed."""
    return getattr(config, "RENAMED", {})


def with_current_names(config: type[Any], raw_settings: Mapping[str, object]) -> dict[str, object]:
    """Rename settings to current names and drop removed ones; of two names of one setting, the later counts."""
    current_names = renamed_settings(config)
    values: dict[str, object] = {}
    for key, value in raw_settings.items():
        name = key.replace("-", "_")
        current = current_names.get(name, name)
        if current is not None:
            values[current] = value
    return values


def form(hint: Any) -> dict[str, Any]:
    """Return a type as JSON Schema."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        low, high = range_of(hint)
        bounds = {"minimum": low, "maximum": high}
        return {**form(args[0]), **{name: x for name, x in bounds.items() if math.isfinite(x)}}
    if origin in (Union, types.UnionType):
        return {"anyOf": [form(arg) for arg in args]}
    if origin is Literal:
        return {"enum": list(args)}
    if origin is tuple:
        bounds = {} if args[1:] == (...,) else {"minItems": len(args), "maxItems": len(args)}
        return {"type": "array", "items": form(args[0]), **bounds}
    return {"type": {bool: "boolean", int: "integer", float: "number", str: "string", NONE: "null"}[hint]}


def range_of(hint: Any) -> tuple[float, float]:
    """Return (low, high) of an annotated number, such as `Annotated[int, Bounds(1, 8)]`; infinite if unbounded."""
    for annotation in hint.__metadata__:
        if isinstance(annotation, Bounds):
            return annotation.low, annotation.high
    return -math.inf, math.inf


def resolve(config: type[Any], raw_settings: Mapping[str, object]) -> Any:
    """Build a Config from text or JSON values under current or former names.

    Raises RunError, which names the invalid setting.
    """
    settings_by_name = {setting.name: setting for setting in settings(config)}
    values = {}
    for name, value in with_current_names(config, raw_settings).items():
        if name not in settings_by_name:
            near = get_close_matches(name, settings_by_name, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"settings: {', '.join(settings_by_name)}"
            raise RunError(f"there is no setting {name!r}; {hint}")
        try:
            values[name] = parse(settings_by_name[name].hint, value)
        except ValueError as error:
            raise RunError(f"setting {name!r} must be {settings_by_name[name].kind}, not {value!r}") from error
    try:
        return config(**values)
    except ValueError as error:  # raised by the Config: value ranges, exclusive settings
        raise RunError(f"these settings cannot be combined: {error}") from error


def parse(hint: Any, value: object) -> object:
    """Convert `value`, text or a JSON value, to the type `hint`. Raises ValueError."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        number = parse(args[0], value)
        low, high = range_of(hint)
        if not low <= cast(float, number) <= high:
            raise ValueError(value)
        return number
    if origin in (Union, types.UnionType):
        return _parse_union(args, value)
    if origin is Literal:
        for choice in args:
            if value == choice or (isinstance(value, str) and value == str(choice)):
                return choice
        raise ValueError(value)
    if origin is tuple:
        return _parse_tuple(args, value)
    if hint is NONE:
        if value is None or (isinstance(value, str) and value.lower() in ("none", "null")):
            return None
    elif hint is bool:
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in TRUE + FALSE:
            return value.lower() in TRUE
    elif hint is int:
        if isinstance(value, int | str) and not isinstance(value, bool):
            return int(value)
        if isinstance(value, float) and value.is_integer():
            return int(value)
    elif hint is float:
        if isinstance(value, int | float | str) and not isinstance(value, bool) and math.isfinite(float(value)):
            return float(value)
    elif hint is str and isinstance(value, str):
        return value
    raise ValueError(value)


def describe(hint: Any) -> str:
    """Return a readable name of the type: `int`, `a|b`, `float or none`, `float,float,float`."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        low, high = range_of(hint)
        bounds = f" from {low:g}" * math.isfinite(low) + f" to {high:g}" * math.isfinite(high)
        return describe(args[0]) + bounds
    if origin in (Union, types.UnionType):
        return " or ".join(describe(arg) for arg in args)
    if origin is Literal:
        return "|".join(str(arg) for arg in args)
    if origin is tuple:
        return f"{describe(args[0])},..." if args[1:] == (...,) else ",".join(describe(arg) for arg in args)
    return "none" if hint is NONE else "true|false" if hint is bool else str(getattr(hint, "__name__", hint))


def _parse_union(hints: tuple[Any, ...], value: object) -> object:
    """Parse as the first matching type. None comes first: `none` for a `str | None` is None, not a string."""
    for hint in sorted(hints, key=lambda hint: hint is not NONE):
        try:
            return parse(hint, value)
        except ValueError:
            continue
    raise ValueError(value)


def _parse_tuple(hints: tuple[Any, ...], value: object) -> tuple[object, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple):
        raise ValueError(value)
    if hints[1:] == (...,):
        hints = (hints[0],) * len(parts)
    return tuple(parse(hint, part) for hint, part in zip(hints, parts, strict=True))


def _docstring_line(config: type[Any], name: str) -> str:
    """Return the text of the docstring line `name: text` or `name (units): text`, with its indented continuation."""
    match = re.search(rf"^([ \t]*){name}\b[^:\n]*:[ \t]*(.+(?:\n\1[ \t]+\S.*)*)", config.__doc__ or "", re.MULTILINE)
    return re.sub(r"\s+", " ", match.group(2)).strip() if match else ""
