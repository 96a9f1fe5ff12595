"""Capabilities of this installation: methods and formats with their settings, listed by a worker process.

The web process itself never imports a method or a format.
"""

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

PROBE_TIMEOUT_S = 120.0  # includes the import of all methods and formats


class Setting(BaseModel):
    """One setting of a method. `schema` is JSON Schema."""

    name: str
    kind: str
    doc: str
    default: JsonValue
    form: dict[str, Any]
    former_names: list[str] = Field(default=[], description="names that requests may still use")


class KindOffer(BaseModel):
    """A kind of content that a format can hold. `presets` are values of the settings for a purpose."""

    kind: AssetKind
    settings: list[Setting]
    presets: dict[str, dict[str, JsonValue]]


class FormatOffer(BaseModel):
    """A file format that `export` can write. A job without a `kind` writes the first one."""

    form: str = Field(description="name in a job, and file suffix", examples=["ply"])
    name: str
    kinds: list[KindOffer]


class Capabilities(BaseModel):
    """Methods with their settings, and the formats that `export` can write."""

    methods: dict[str, list[Setting]]
    default: str
    formats: list[FormatOffer]


class CapabilityProbe:
    """Runs the worker in the background from its creation on; `get` waits for the result."""

    def __init__(self, command: Sequence[str] = ()) -> None:
        self._command = list(command) or [sys.executable, "-m", "lumigraph.worker", "--describe"]
        self._capabilities: Capabilities | None = None
        self._error = ""
        self._thread = self._start()

    def get(self) -> Capabilities:
        """The capabilities. Raises Problem 503 if the worker failed; the next call then gets the result of a retry."""
        thread = self._thread
        thread.join(PROBE_TIMEOUT_S)
        if self._capabilities is None:
            if not thread.is_alive():
                self._thread = self._start()
            raise Problem(503, "No workers", self._error or "The workers take long to start; try again.")
        return self._capabilities

    def _start(self) -> threading.Thread:
        thread = threading.Thread(target=self._run_worker, name="capability-probe", daemon=True)
        thread.start()
        return thread

    def check(self, request: JobRequest) -> None:
        """Raises Problem 422, naming the field, if a method, format or setting is unknown or out of range."""
        if isinstance(request, ExportJob):
            self._check_export(request)
        if not isinstance(request, TrainJob) or (request.method is None and not request.settings):
            return
        capabilities = self.get()
        name = request.method or capabilities.default
        if name not in capabilities.methods:
            _reject("method", f"there is no method {name!r}; these exist: {', '.join(capabilities.methods)}")
        _check_settings(f"the method {name}", capabilities.methods[name], request.settings)

    def _check_export(self, request: ExportJob) -> None:
        formats = {offer.form: offer for offer in self.get().formats}
        if request.form not in formats:
            _reject("form", f"there is no format {request.form!r}; these exist: {', '.join(formats)}")
        file_format = formats[request.form]
        kinds = {offer.kind: offer for offer in file_format.kinds}
        if request.kind is not None and request.kind not in kinds:
            _reject("kind", f"{file_format.name} holds no {request.kind}; it holds: {', '.join(kinds)}")
        kind = kinds[request.kind] if request.kind is not None else file_format.kinds[0]
        _check_settings(f"{file_format.name} of {kind.kind}", kind.settings, request.settings)

    def _run_worker(self) -> None:
        try:
            process = subprocess.run(self._command, capture_output=True, timeout=PROBE_TIMEOUT_S, check=True, text=True)
            self._capabilities = Capabilities.model_validate(json.loads(process.stdout.splitlines()[-1]))
        except subprocess.CalledProcessError as error:
            self._error = f"A worker could not list the capabilities: {error.stderr.strip().splitlines()[-1:]}"
        except (OSError, ValueError, IndexError, subprocess.TimeoutExpired) as error:
            self._error = f"A worker could not list the capabilities: {error}"


def _check_settings(owner: str, settings: list[Setting], values: Mapping[str, Any]) -> None:
    """Raises Problem 422 for the first value whose setting does not exist, or that is out of range."""
    schemas = {setting.name: setting.form for setting in settings}
    for key, value in values.items():
        if key not in schemas:
            close_names = get_close_matches(key, schemas, n=1)
            hint = f"did you mean {close_names[0]!r}?" if close_names else f"settings: {', '.join(schemas) or 'none'}"
            _reject(f"settings.{key}", f"{owner} has no such setting; {hint}")
        reason = schema_error(schemas[key], value)
        if reason:
            _reject(f"settings.{key}", reason)


def schema_error(schema: dict[str, Any], value: Any) -> str:
    """Describe why a value violates a schema; "" if it is valid. Supports the part of JSON Schema that settings use."""
    if "anyOf" in schema:
        reasons = [schema_error(option, value) for option in schema["anyOf"]]
        return "" if "" in reasons else " and ".join(reasons)
    if "enum" in schema:
        return "" if value in schema["enum"] else f"must be one of {', '.join(map(str, schema['enum']))}"
    types: dict[str, tuple[type, ...]] = {
        "integer": (int,),
        "number": (int, float),
        "string": (str,),
        "boolean": (bool,),
        "null": (type(None),),
        "array": (list,),
    }
    name = schema["type"]
    if not isinstance(value, types[name]) or (isinstance(value, bool) and name != "boolean"):
        return f"must be of the type {name}"
    if isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            return f"must have {schema['minItems']} items"
        return next((reason for item in value if (reason := schema_error(schema["items"], item))), "")
    if "minimum" in schema and value < schema["minimum"]:
        return f"must be at least {schema['minimum']}"
    if "maximum" in schema and value > schema["maximum"]:
        return f"must be at most {schema['maximum']}"
    return ""


def _reject(field: str, detail: str) -> None:
    errors = [{"where": "body", "path": f"$.{field}", "detail": detail}]
    raise Problem(422, "Invalid request", f"{field}: {detail}", errors=errors)
