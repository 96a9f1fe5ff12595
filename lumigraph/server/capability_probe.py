"""What the methods and formats of this installation offer, which a worker tells: this process never imports them."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, Field, JsonValue

from lumigraph.server.problems import Problem
from lumigraph.wire.requests import AssetKind
from lumigraph.wire.resources import ExportJob, JobRequest, TrainJob

PATIENCE = 120.0  # seconds that a worker may take to tell; importing everything takes some


class Setting(BaseModel):
    """One setting of a method. `schema` is JSON Schema."""

    name: str
    kind: str
    doc: str
    default: JsonValue
    form: dict[str, Any]
    former_names: list[str] = Field(default=[], description="names that requests may still use")


class KindOffer(BaseModel):
    """What a form of file can hold. `presets` are values of the settings for a purpose."""

    kind: AssetKind
    settings: list[Setting]
    presets: dict[str, dict[str, JsonValue]]


class FormatOffer(BaseModel):
    """A file that `export` can write. The kind that comes first is written where a job names none."""

    form: str = Field(description="as a job names it, and the file's suffix", examples=["ply"])
    name: str
    kinds: list[KindOffer]


class Described(BaseModel):
    """methods: the settings of each; formats: what `export` can write."""

    methods: dict[str, list[Setting]]
    default: str
    formats: list[FormatOffer]


class CapabilityProbe:
    """Asked for in the background as soon as it is made; whoever needs it earlier waits."""

    def __init__(self, command: Sequence[str] = ()) -> None:
        self._command = list(command) or [sys.executable, "-m", "lumigraph.worker", "--describe"]
        self._described: Described | None = None
        self._failed = ""
        self._thread = self._asking()

    def get(self) -> Described:
        """Raises Problem 503 where no worker could tell; the next who needs it may find that another could."""
        thread = self._thread
        thread.join(PATIENCE)
        if self._described is None:
            if not thread.is_alive():
                self._thread = self._asking()
            raise Problem(503, "No workers", self._failed or "The workers take long to start; try again.")
        return self._described

    def _asking(self) -> threading.Thread:
        thread = threading.Thread(target=self._ask, name="catalogue", daemon=True)
        thread.start()
        return thread

    def check(self, asked: JobRequest) -> None:
        """Raises Problem 422 naming the field that no method or format knows, or that is out of its range."""
        if isinstance(asked, ExportJob):
            self._check_export(asked)
        if not isinstance(asked, TrainJob) or (asked.method is None and not asked.settings):
            return
        described = self.get()
        name = asked.method or described.default
        if name not in described.methods:
            _refuse("method", f"there is no method {name!r}; these exist: {', '.join(described.methods)}")
        _check_settings(f"the method {name}", described.methods[name], asked.settings)

    def _check_export(self, asked: ExportJob) -> None:
        offers = {offer.form: offer for offer in self.get().formats}
        if asked.form not in offers:
            _refuse("form", f"there is no format {asked.form!r}; these exist: {', '.join(offers)}")
        kinds = {one.kind: one for one in offers[asked.form].kinds}
        if asked.kind is not None and asked.kind not in kinds:
            _refuse("kind", f"{offers[asked.form].name} holds no {asked.kind}; it holds: {', '.join(kinds)}")
        chosen = kinds[asked.kind] if asked.kind is not None else offers[asked.form].kinds[0]
        _check_settings(f"{offers[asked.form].name} of {chosen.kind}", chosen.settings, asked.settings)

    def _ask(self) -> None:
        try:
            done = subprocess.run(self._command, capture_output=True, timeout=PATIENCE, check=True, text=True)
            self._described = Described.model_validate(json.loads(done.stdout.splitlines()[-1]))
        except subprocess.CalledProcessError as error:
            self._failed = f"A worker could not tell what there is: {error.stderr.strip().splitlines()[-1:]}"
        except (OSError, ValueError, IndexError, subprocess.TimeoutExpired) as error:
            self._failed = f"A worker could not tell what there is: {error}"


def _check_settings(whose: str, known: list[Setting], given: Mapping[str, Any]) -> None:
    """Raises Problem 422 naming the first that does not exist or is out of its range."""
    forms = {setting.name: setting.form for setting in known}
    forms |= {name: setting.form for setting in known for name in setting.former_names}
    for key, value in given.items():
        if key not in forms:
            near = get_close_matches(key, forms, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"settings: {', '.join(forms) or 'none'}"
            _refuse(f"settings.{key}", f"{whose} has no such setting; {hint}")
        wrong = fault(forms[key], value)
        if wrong:
            _refuse(f"settings.{key}", wrong)


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
