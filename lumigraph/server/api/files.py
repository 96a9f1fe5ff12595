"""Routes for the files of a project over plain HTTP: list, GET, DELETE, and a PUT in one piece for `curl -T`.

    curl -T garden.mp4 -H "Authorization: Bearer $TOKEN" http://localhost:7007/api/v1/projects/7/files/garden.mp4

Uploads that must survive a broken connection should use `uploads`.
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
from lumigraph.server.files.body_writer import FileSink, StreamedRoute, WriteTurn, write_body
from lumigraph.server.files.downloads import send_file
from lumigraph.server.files.quotas import Limits, QuotaLedger, check_free, check_size
from lumigraph.server.problems import Problem, error_responses
from lumigraph.wire.files import StoredFile


def router(root_of: Callable[[str], Path], limits: Limits, ledger: QuotaLedger) -> APIRouter:
    """Routes below /files of a project."""
    files = APIRouter(prefix="/files", route_class=StreamedRoute)
    Root = Annotated[Path, Depends(root_of)]

    @files.get("", summary="The files of a project", responses=error_responses(404, 409))
    def list_files(root: Root) -> list[StoredFile]:
        return project_files.list_files(root)

    @files.get(
        "/{name:path}",
        response_class=Response,
        summary="A file, or one range of it",
        responses={
            **error_responses(404, 409, 416),
            206: {"description": "Partial Content"},
            304: {"description": "Not Modified"},
        },
    )
    @files.head("/{name:path}", include_in_schema=False)
    def get(request: Request, root: Root, name: str) -> Response:
        return send_file(request, root / project_files.FILES, "/".join(filenames.parts_of(name)))

    @files.put(
        "/{name:path}",
        status_code=201,
        response_model=StoredFile,
        summary="Put a file in one piece",
        responses={
            **error_responses(404, 408, 409, 413, 415, 507),
            200: {"model": StoredFile, "description": "Replaced"},
        },
        openapi_extra={
            "requestBody": {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
        },
    )
    async def put(request: Request, root: Root, name: str, overwrite: bool = False) -> Response:
        parts = filenames.parts_of(name)
        suffix = filenames.suffix_of(parts)
        declared_bytes = int(request.headers.get("content-length") or 0)
        check_size(declared_bytes, limits)
        partial = secrets.token_hex(16)
        descriptor = await asyncio.to_thread(
            create_partial, root, partial, parts, overwrite, declared_bytes, limits, ledger
        )
        reserved_bytes = 0

        def reserve(count: int) -> None:
            nonlocal reserved_bytes
            ledger.reserve(root, count)
            reserved_bytes += count

        def finish() -> tuple[StoredFile, int | None]:
            content_type.check(descriptor, suffix, limits.pixels)
            os.fsync(descriptor)
            with safe_open.folder(root, (project_files.UPLOADS,)) as folder:
                return project_files.move_into_place(root, folder, partial, parts, overwrite)

        try:
            sink = FileSink(
                descriptor, 0, limits.file_bytes, limits, lambda head: content_type.check_head(head, suffix), reserve
            )
            await write_body(request, sink, WriteTurn())
            stored_file, replaced_bytes = await asyncio.to_thread(finish)
        except BaseException:
            remove_partial(root, partial)
            ledger.release(root, reserved_bytes, 1)
            raise
        finally:
            os.close(descriptor)
        if replaced_bytes is not None:
            ledger.release(root, replaced_bytes, 1)
        headers = {"etag": stored_file.etag}
        return JSONResponse(stored_file.model_dump(mode="json"), 201 if replaced_bytes is None else 200, headers)

    @files.delete(
        "/{name:path}",
        status_code=204,
        response_class=Response,
        summary="Remove a file",
        responses=error_responses(404, 409),
    )
    def delete(root: Root, name: str) -> Response:
        ledger.release(root, project_files.delete(root, filenames.parts_of(name)), 1)
        return Response(status_code=204)

    return files


def create_partial(
    root: Path,
    partial: str,
    parts: filenames.Parts,
    overwrite: bool,
    declared_bytes: int,
    limits: Limits,
    ledger: QuotaLedger,
) -> int:
    """Create an empty file to write to, and lock it. Raises Problem 409, 413 or 507 if the upload cannot succeed."""
    project_files.check_free_name(root, parts, overwrite)
    with safe_open.folder(root, (project_files.UPLOADS,), make=True) as folder:
        check_free(folder, declared_bytes, limits)
        ledger.reserve(root, declared_bytes, 1)
        ledger.release(root, declared_bytes)  # only a check: write_body reserves the bytes as they arrive
        descriptor = safe_open.file(folder, partial, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    project_files.lock(descriptor)
    return descriptor


def remove_partial(root: Path, partial: str) -> None:
    try:
        with safe_open.folder(root, (project_files.UPLOADS,)) as folder:
            safe_open.remove(folder, partial)
    except (FileNotFoundError, Problem):  # the project was removed, or its folder holds a link
        return
