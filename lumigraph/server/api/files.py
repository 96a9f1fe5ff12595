"""The files of a project over plain HTTP: list, GET, DELETE, and a PUT in one piece for `curl -T`.

    curl -T garden.mp4 -H "Authorization: Bearer $TOKEN" http://localhost:7007/api/v1/projects/7/files/garden.mp4

What must survive a broken connection is better sent by `uploads`.
"""

import asyncio
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import JSONResponse, Response

from lumigraph.server.files import content_type, filenames, project_files, safe_open
from lumigraph.server.files.body_writer import FileSink, StreamedRoute, WriteTurn, pour
from lumigraph.server.files.downloads import send_file
from lumigraph.server.files.quotas import Limits, QuotaLedger, check_free, check_size
from lumigraph.server.problems import Problem, documented
from lumigraph.wire.files import StoredFile


def router(root_of: Callable[[str], Path], limits: Limits, ledger: QuotaLedger) -> APIRouter:
    """Routes below /files of a project."""
    made = APIRouter(prefix="/files", route_class=StreamedRoute)
    Root = Annotated[Path, Depends(root_of)]

    @made.get("", summary="The files of a project", responses=documented(404, 409))
    def listed(root: Root) -> list[StoredFile]:
        return project_files.listing(root)

    @made.get(
        "/{name:path}",
        response_class=Response,
        summary="A file, or one range of it",
        responses={
            **documented(404, 409, 416),
            206: {"description": "Partial Content"},
            304: {"description": "Not Modified"},
        },
    )
    @made.head("/{name:path}", include_in_schema=False)
    def get(request: Request, root: Root, name: str) -> Response:
        return send_file(request, root / project_files.FILES, "/".join(filenames.parts_of(name)))

    @made.put(
        "/{name:path}",
        status_code=201,
        response_model=StoredFile,
        summary="Put a file in one piece",
        responses={**documented(404, 408, 409, 413, 415, 507), 200: {"model": StoredFile, "description": "Replaced"}},
        openapi_extra={
            "requestBody": {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
        },
    )
    async def put(request: Request, root: Root, name: str, overwrite: bool = False) -> Response:
        parts = filenames.parts_of(name)
        suffix = filenames.suffix_of(parts)
        declared = int(request.headers.get("content-length") or 0)
        check_size(declared, limits)
        partial = secrets.token_hex(16)
        descriptor = await asyncio.to_thread(begin, root, partial, parts, overwrite, declared, limits, ledger)
        counted = 0

        def grow(count: int) -> None:
            nonlocal counted
            ledger.take(root, count)
            counted += count

        def finish() -> tuple[StoredFile, int | None]:
            content_type.check(descriptor, suffix, limits.pixels)
            os.fsync(descriptor)
            with safe_open.folder(root, (project_files.UPLOADS,)) as folder:
                return project_files.place(root, folder, partial, parts, overwrite)

        try:
            sink = FileSink(
                descriptor, 0, limits.file_bytes, limits, lambda head: content_type.check_head(head, suffix), grow
            )
            await pour(request, sink, WriteTurn())
            stored, replaced = await asyncio.to_thread(finish)
        except BaseException:
            drop(root, partial)
            ledger.give_back(root, counted, 1)
            raise
        finally:
            os.close(descriptor)
        if replaced is not None:
            ledger.give_back(root, replaced, 1)
        headers = {"etag": stored.etag}
        return JSONResponse(stored.model_dump(mode="json"), 201 if replaced is None else 200, headers)

    @made.delete(
        "/{name:path}",
        status_code=204,
        response_class=Response,
        summary="Remove a file",
        responses=documented(404, 409),
    )
    def delete(root: Root, name: str) -> Response:
        ledger.give_back(root, project_files.delete(root, filenames.parts_of(name)), 1)
        return Response(status_code=204)

    return made


def begin(
    root: Path,
    partial: str,
    parts: filenames.Parts,
    overwrite: bool,
    declared: int,
    limits: Limits,
    ledger: QuotaLedger,
) -> int:
    """A new, empty file to write to, locked. Raises Problem 409, 413 or 507 where it cannot end well."""
    project_files.check_free_name(root, parts, overwrite)
    with safe_open.folder(root, (project_files.UPLOADS,), make=True) as folder:
        check_free(folder, declared, limits)
        ledger.take(root, declared, 1)
        ledger.give_back(root, declared)  # it is counted as it comes
        descriptor = safe_open.file(folder, partial, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    project_files.lock(descriptor)
    return descriptor


def drop(root: Path, partial: str) -> None:
    try:
        with safe_open.folder(root, (project_files.UPLOADS,)) as folder:
            safe_open.remove(folder, partial)
    except (FileNotFoundError, Problem):  # the project is gone, or its folder was tampered with
        return
