"""Errors of the HTTP interface: all of them are `application/problem+json` (RFC 9457).

Routes raise `Problem`; `install(app)` adds the handlers for it and for all other exceptions. People read `title` and
`detail`. Programs compare `type`, which is derived from the title and changes only with it. An unexpected error is
logged with its traceback; the client gets a bare 500 without internals. A WebSocket is closed with 4000 + the status.
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
DISK_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
SQLITE_FULL = 13
MAX_CAUSES = 8  # length of the chain of exceptions that is searched

log = logging.getLogger(__name__)


class FieldError(BaseModel):
    """One rejected value: its place in the request, and the reason."""

    where: str  # body, query, path, header or cookie
    path: str  # JSONPath from there: $.settings.steps, $.views[3]
    detail: str


class ProblemDetails(BaseModel):
    """The body of every response with a status of 400 or above."""

    model_config = ConfigDict(extra="allow")

    type: str = "about:blank"
    title: str
    status: int
    detail: str = ""
    instance: str = ""  # the path of the request
    errors: list[FieldError] | None = None


class Problem(HTTPException):
    """An error response, raised by a route: `raise Problem(404, "No such project", "There is no project 7.")`.

    `more` becomes further members of the body. The base class is HTTPException, because FastAPI turns any other
    exception that is raised while it reads a request body into a 400.
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
    """The reason phrase of a status: 'Not Found' for 404, 'Error' for statuses without one."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def details(problem: Problem, instance: str) -> dict[str, Any]:
    """The members of the response body, ready for JSON."""
    slug = re.sub(r"[^a-z0-9]+", "-", problem.title.lower()).strip("-")
    type_uri = "about:blank" if problem.title == phrase(problem.status_code) else f"urn:lumigraph:problem:{slug}"
    body = {"type": type_uri, "title": problem.title, "status": problem.status_code, "detail": problem.detail}
    return {**problem.more, **body, "instance": instance}


def problem_response(problem: Problem, instance: str) -> Response:
    """The problem as a response; `instance` is the path of the request, without its query."""
    headers = dict(problem.headers or {})
    return JSONResponse(details(problem, instance), problem.status_code, headers, MEDIA_TYPE)


def to_problem(error: BaseException) -> Problem | None:
    """The problem that describes an exception to a client, or None for internal errors."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, RequestValidationError):
        faults = list(field_errors(error))
        places = ", ".join(dict.fromkeys(f"{fault.where} {fault.path}" for fault in faults))
        errors = [fault.model_dump() for fault in faults]
        return Problem(422, "Invalid request", f"Not accepted: {places}.", errors=errors)
    if isinstance(error, HTTPException):
        return Problem(error.status_code, "", str(error.detail or ""), error.headers)
    if any(is_disk_full(cause) for cause in causes(error)):
        return Problem(507, "Disk full", "The server's disk is full. No data was damaged; free space and try again.")
    return None


def is_disk_full(error: BaseException) -> bool:
    """Whether a write to a file or to SQLite failed because the disk is full."""
    if isinstance(error, OSError):
        return error.errno in DISK_FULL_ERRNOS
    return getattr(error, "sqlite_errorcode", None) == SQLITE_FULL


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and those that it wraps (in `orig`, for SQLAlchemy)."""
    for _ in range(MAX_CAUSES):
        if error is None:
            return
        yield error
        inner = getattr(error, "orig", None) or error.__cause__
        error = inner if isinstance(inner, BaseException) else None


def field_errors(error: RequestValidationError) -> Iterator[FieldError]:
    """Convert pydantic's errors. The rejected values are left out: they may be long, or secret."""
    for fault in error.errors():
        where, *path = fault.get("loc") or ("body",)
        steps = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
        yield FieldError(where=str(where), path=f"${steps}", detail=str(fault.get("msg", "")))


def install(app: FastAPI) -> None:
    """Add the error handlers to `app`, and the schema of problems to its OpenAPI document."""

    async def handle(connection: HTTPConnection, error: Exception) -> Response:
        problem = to_problem(error)
        if problem is None:
            log.error("%s failed", connection.url.path, exc_info=error)
            problem = Problem(500, "", "The server failed to process the request; see its log.")
        if isinstance(connection, WebSocket):
            with suppress(RuntimeError):  # already closed
                await connection.close(4000 + problem.status_code, problem.title[:100])
        return problem_response(problem, connection.url.path)

    for exception_type in (HTTPException, RequestValidationError, OSError, Exception):
        app.add_exception_handler(exception_type, handle)

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(title=app.title, version=app.version, routes=app.routes, description=app.description)
            schema = ProblemDetails.model_json_schema(ref_template="#/components/schemas/{model}")
            nested_schemas = schema.pop("$defs", {})
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            schemas.update(nested_schemas, ProblemDetails=schema)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For `responses=` of a route: the given statuses and those that every route can return."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}}
    common = (400, 401, 403, 408, 413, 422, 500)
    return {n: {"description": phrase(n), "content": content} for n in sorted({*statuses, *common})}
