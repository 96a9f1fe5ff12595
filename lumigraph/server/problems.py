"""Every error of the HTTP interface is one shape: `application/problem+json` (RFC 9457).

Routes raise `Problem`; `install(app)` answers it, and whatever else can go wrong, in that shape. A person reads `title`
and `detail`; a program compares `type`, which is made of the title and therefore stays as long as the title does.
Nothing about the inside of the server is told: an unforeseen error goes to the log, with its traceback, and to the
client as a bare 500. A WebSocket is closed with 4000 + the status.
"""

from __future__ import annotations

import errno
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, Response
from starlette.websockets import WebSocket

MEDIA_TYPE = "application/problem+json"
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
SQLITE_FULL = 13

log = logging.getLogger(__name__)


class FieldError(BaseModel):
    """One value that was refused: where it stood, and why."""

    where: str  # body, query, path, header or cookie
    path: str  # JSONPath from there: $.settings.steps, $.views[3]
    detail: str


class ProblemDetails(BaseModel):
    """What every answer with a status of 400 and above holds."""

    model_config = ConfigDict(extra="allow")

    type: str = "about:blank"
    title: str
    status: int
    detail: str = ""
    instance: str = ""  # the path that was asked for
    errors: list[FieldError] | None = None


class Problem(HTTPException):
    """Raised by a route: `raise Problem(404, "No such project", "There is no project 7.")`.

    `more` becomes further members of the answer. It is an HTTPException so that it comes through FastAPI's reading of
    the body, which turns any other exception into a 400.
    """

    def __init__(
        self, status: int, title: str = "", detail: str = "", headers: Mapping[str, str] | None = None, **more: Any
    ) -> None:
        super().__init__(status, detail, dict(headers or {}))
        self.title = title or phrase(status)
        self.more = more

    def __str__(self) -> str:
        return f"{self.status_code} {self.title}: {self.detail}"


def phrase(status: int) -> str:
    """'Not Found' of 404; a plain word for numbers that HTTP does not name."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def details(problem: Problem, instance: str) -> dict[str, Any]:
    """The members of the answer, ready for JSON."""
    slug = re.sub(r"[^a-z0-9]+", "-", problem.title.lower()).strip("-")
    kind = "about:blank" if problem.title == phrase(problem.status_code) else f"urn:lumigraph:problem:{slug}"
    body = {"type": kind, "title": problem.title, "status": problem.status_code, "detail": problem.detail}
    return {**problem.more, **body, "instance": instance}


def answer(problem: Problem, instance: str) -> Response:
    """The problem as a response; `instance` is the path that was asked for, without its query."""
    headers = dict(problem.headers or {})
    return JSONResponse(details(problem, instance), problem.status_code, headers, MEDIA_TYPE)


def understood(error: BaseException) -> Problem | None:
    """The problem that an exception stands for, or None where it is nothing that a client could understand."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, RequestValidationError):
        found = list(field_errors(error))
        named = ", ".join(dict.fromkeys(f"{one.where} {one.path}" for one in found))
        errors = [one.model_dump() for one in found]
        return Problem(422, "Invalid request", f"Not accepted: {named}.", errors=errors)
    if isinstance(error, HTTPException):
        return Problem(error.status_code, "", str(error.detail or ""), error.headers)
    if any(is_full(one) for one in chain(error)):
        return Problem(507, "Disk full", "There is no room left on the server's disk. Nothing was damaged; try again.")
    return None


def is_full(error: BaseException) -> bool:
    """Whether a write failed for want of room: a file's, or SQLite's."""
    if isinstance(error, OSError):
        return error.errno in FULL
    return getattr(error, "sqlite_errorcode", None) == SQLITE_FULL


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and those that it wraps (`orig` is SQLAlchemy's word for it)."""
    for _ in range(8):
        if error is None:
            return
        yield error
        inner = getattr(error, "orig", None) or error.__cause__
        error = inner if isinstance(inner, BaseException) else None


def field_errors(error: RequestValidationError) -> Iterator[FieldError]:
    """pydantic's list in our words. The refused values stay out: they may be long, or secret."""
    for one in error.errors():
        where, *path = one.get("loc") or ("body",)
        steps = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
        yield FieldError(where=str(where), path=f"${steps}", detail=str(one.get("msg", "")))


def install(app: FastAPI) -> None:
    """Have every error of `app` answered in this shape, and its schema named in the OpenAPI document."""

    async def handle(connection: HTTPConnection, error: Exception) -> Response:
        problem = understood(error)
        if problem is None:
            log.error("%s failed", connection.url.path, exc_info=error)
            problem = Problem(500, "", "The server failed at this; its log says how.")
        if isinstance(connection, WebSocket):
            with suppress(RuntimeError):  # it is closed already
                await connection.close(4000 + problem.status_code, problem.title[:100])
        return answer(problem, connection.url.path)

    for kind in (HTTPException, RequestValidationError, OSError, Exception):
        app.add_exception_handler(kind, handle)

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(title=app.title, version=app.version, routes=app.routes, description=app.description)
            schema = ProblemDetails.model_json_schema(ref_template="#/components/schemas/{model}")
            inner = schema.pop("$defs", {})
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            schemas.update(inner, ProblemDetails=schema)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For `responses=` of a route: the given statuses and those that every route can give."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}}
    everywhere = (400, 401, 403, 408, 413, 422, 500)
    return {n: {"description": phrase(n), "content": content} for n in sorted({*statuses, *everywhere})}
