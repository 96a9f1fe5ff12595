"""What the methods and formats of this installation offer, which a worker tells: this process never imports them."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, JsonValue

from lumigraph.server.problems import Problem
from lumigraph.wire.jobs import Asked, ExportJob, TrainJob

PATIENCE = 120.0  # seconds that a worker may take to tell; importing everything takes some


class Setting(BaseModel):
    """One setting of a method. `schema` is JSON Schema."""

    name: str
    kind: str
    doc: str
    default: JsonValue
    form: dict[str, Any]


class Described(BaseModel):
    """methods: the settings of each; formats: suffixes that `export` can write."""

    methods: dict[str, list[Setting]]
    default: str
    formats: list[str]


class Catalogue:
    """Asked for in the background as soon as it is made; whoever needs it earlier waits."""

    def __init__(self, command: Sequence[str] = ()) -> None:
        self._command = list(command) or [sys.executable, "-m", "lumigraph.worker", "--describe"]
        self._described: Described | None = None
        self._failed = ""
        self._thread = threading.Thread(target=self._ask, name="catalogue", daemon=True)
        self._thread.start()

    def get(self) -> Described:
        """Raises Problem 503 where no worker could tell."""
        self._thread.join(PATIENCE)
        if self._described is None:
            raise Problem(503, "No workers", self._failed or "The workers take long to start; try again.")
        return self._described

    def check(self, asked: Asked) -> None:
        """Raises Problem 422 naming the field that no method or format knows, or that is out of its range."""
        if isinstance(asked, ExportJob):
            known = self.get().formats
            if f".{asked.form}" not in known:
                _refuse("form", f"there is no format {asked.form!r}; these exist: {', '.join(known)}")
        if not isinstance(asked, TrainJob) or (asked.method is None and not asked.settings):
            return
        described = self.get()
        name = asked.method or described.default
        if name not in described.methods:
            _refuse("method", f"there is no method {name!r}; these exist: {', '.join(described.methods)}")
        settings = {setting.name: setting.form for setting in described.methods[name]}
        for key, value in asked.settings.items():
            if key not in settings:
                near = get_close_matches(key, settings, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"settings: {', '.join(settings)}"
                _refuse(f"settings.{key}", f"the method {name} has no such setting; {hint}")
            wrong = fault(settings[key], value)
            if wrong:
                _refuse(f"settings.{key}", wrong)

    def _ask(self) -> None:
        try:
            done = subprocess.run(self._command, capture_output=True, timeout=PATIENCE, check=True, text=True)
            self._described = Described.model_validate(json.loads(done.stdout.splitlines()[-1]))
        except subprocess.CalledProcessError as error:
            self._failed = f"A worker could not tell what there is: {error.stderr.strip().splitlines()[-1:]}"
        except (OSError, ValueError, IndexError, subprocess.TimeoutExpired) as error:
            self._failed = f"A worker could not tell what there is: {error}"


def fault(schema: dict[str, Any], value: Any) -> str:
    """What is wrong with a value, in words, or "" where nothing is. Knows the part of JSON Schema that settings use."""
    if "anyOf" in schema:
        faults = [fault(one, value) for one in schema["anyOf"]]
        return "" if "" in faults else " and ".join(faults)
    if "enum" in schema:
        return "" if value in schema["enum"] else f"must be one of {', '.join(map(str, schema['enum']))}"
    kinds: dict[str, tuple[type, ...]] = {
        "integer": (int,),
        "number": (int, float),
        "string": (str,),
        "boolean": (bool,),
        "null": (type(None),),
        "array": (list,),
    }
    kind = schema["type"]
    if not isinstance(value, kinds[kind]) or (isinstance(value, bool) and kind != "boolean"):
        return f"must be of the type {kind}"
    if isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            return f"must have {schema['minItems']} items"
        return next((wrong for item in value if (wrong := fault(schema["items"], item))), "")
    if "minimum" in schema and value < schema["minimum"]:
        return f"must be at least {schema['minimum']}"
    if "maximum" in schema and value > schema["maximum"]:
        return f"must be at most {schema['maximum']}"
    return ""


def _refuse(field: str, detail: str) -> None:
    errors = [{"where": "body", "path": f"$.{field}", "detail": detail}]
    raise Problem(422, "Invalid request", f"{field}: {detail}", errors=errors)
