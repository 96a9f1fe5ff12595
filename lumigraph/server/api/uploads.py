"""Resumable uploads by the tus protocol 1.0 (https://tus.io/protocols/resumable-upload): core, creation,
creation-with-upload, termination, expiration, checksum. `router()` also holds the plain PUT, GET, list and DELETE of
`files.py`.

A partial upload is two files in the project's folder `uploads/`: `ID` holds the received bytes, `ID.json` the
declaration. The length of `ID` is the only record of the offset, so it is correct after a kill at any moment. After the
last byte the file is checked, synced and renamed to its place in `files/`. A small `ID.json` stays for a while, so that
a client that lost the response learns of the success. If a connection breaks before a checksum can be compared, its
bytes are dropped. If the server is killed, they stay, like those of a PATCH without a checksum.
"""

import asyncio
import base64
import binascii
import contextlib
import hashlib
import os
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from email.utils import formatdate
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ValidationError
from starlette.responses import Response

from lumigraph.server.api import files
from lumigraph.server.files import content_type, filenames, project_files, safe_open
from lumigraph.server.files.body_writer import FileSink, StreamedRoute, WriteTurn, write_body
from lumigraph.server.files.quotas import Limits, QuotaLedger, check_free, check_size
from lumigraph.server.problems import Problem, error_responses

TUS_VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,termination,expiration,checksum"
BODY_TYPE = "application/offset+octet-stream"
ALGORITHMS = {"sha1": hashlib.sha1, "sha256": hashlib.sha256}
UPLOAD_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
DECIMAL = re.compile(r"[0-9]{1,18}", re.ASCII)
ORPHAN_EXPIRY_S = 3600.0  # for a file without its pair: the record of a finished upload, or a PUT of a killed server
TAKEOVER_TIMEOUT_S = 10.0  # for the previous request to the same upload to stop
MAX_METADATA_CHARS = 4096
MAX_DECLARATION_BYTES = 64 << 10


class Declaration(BaseModel):
    """The declaration of an upload, stored next to its bytes."""

    name: str
    length: int
    overwrite: bool = False
    metadata: str = ""  # the header as received
    done: bool = False  # the file is in files/, or is being moved there


class TusRoute(StreamedRoute):
    """Adds the protocol version to each response, and rejects requests of another version."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            headers = {"tus-resumable": TUS_VERSION}
            try:
                if request.method != "OPTIONS" and request.headers.get("tus-resumable") != TUS_VERSION:
                    headers["tus-version"] = TUS_VERSION
                    raise Problem(412, "Unknown protocol version", f"Send 'Tus-Resumable: {TUS_VERSION}'.")
                response = await handler(request)
            except Problem as problem:
                problem.headers = {**(problem.headers or {}), **headers}
                raise
            response.headers.update(headers)
            return response

        return handle


def router(folder_of: Callable[[str], Path], limits: Limits | None = None) -> APIRouter:
    """Routes below /projects/{project}: uploads and files.

    `folder_of` returns the existing folder of a project or raises Problem 404. It is called in a thread.
    """
    bounds = limits or Limits()
    ledger = QuotaLedger(bounds, lambda root: count_usage(root))
    turns: dict[tuple[Path, str], WriteTurn] = {}
    project_router = APIRouter(prefix="/projects/{project}", tags=["files"])
    tus = APIRouter(prefix="/uploads", route_class=TusRoute)

    def root_of(project: str) -> Path:
        return folder_of(project)

    Root = Annotated[Path, Depends(root_of)]

    @contextlib.asynccontextmanager
    async def turn_at(root: Path, upload: str) -> AsyncIterator[WriteTurn]:
        """Take over the right to write this upload: ask the current writer to stop, and wait until it has."""
        if not UPLOAD_ID.fullmatch(upload):
            raise no_such_upload()
        try:
            async with asyncio.timeout(TAKEOVER_TIMEOUT_S):
                while previous := turns.get((root, upload)):
                    previous.end()
                    await previous.release_event.wait()
        except TimeoutError:
            raise Problem(423, "Busy", "Another request still writes this upload.", {"retry-after": "5"}) from None
        turns[root, upload] = turn = WriteTurn()
        try:
            yield turn
        finally:
            del turns[root, upload]
            turn.release_event.set()

    @tus.options("", status_code=204, summary="The supported upload protocol", responses=error_responses(404, 409))
    async def options(root: Root) -> Response:
        headers = {"tus-version": TUS_VERSION, "tus-extension": EXTENSIONS, "tus-max-size": str(bounds.file_bytes)}
        return Response(status_code=204, headers={**headers, "tus-checksum-algorithm": ",".join(ALGORITHMS)})

    @tus.post(
        "",
        status_code=201,
        response_class=Response,
        summary="Create an upload",
        responses=error_responses(400, 404, 409, 412, 413, 415, 507),
    )
    async def create(request: Request, root: Root, overwrite: bool = False) -> Response:
        declaration = parse_declaration(request, overwrite)
        check_size(declaration.length, bounds)
        upload = secrets.token_hex(16)
        await asyncio.to_thread(create_partial, root, upload, declaration, ledger)
        headers = {"location": f"{request.url.path}/{upload}", "upload-expires": expires(bounds)}
        with_body = request.headers.get("content-type") == BODY_TYPE
        if with_body or declaration.length == 0:
            async with turn_at(root, upload) as turn:
                body = request if with_body else None
                offset = await receive(root, upload, 0, body, turn, bounds, ledger)
            headers["upload-offset"] = str(offset)
        return Response(status_code=201, headers=headers)

    @tus.head(
        "/{upload}",
        response_class=Response,
        summary="The offset of an upload",
        responses=error_responses(404, 409, 412),
    )
    async def head(root: Root, upload: str) -> Response:
        async with turn_at(root, upload):
            declaration, offset = await asyncio.to_thread(read_state, root, upload)
            if (
                offset is not None and offset == declaration.length
            ):  # the server was killed between the last byte and the move into place
                await asyncio.to_thread(finish, root, upload, declaration, bounds, ledger)
        length = str(declaration.length)
        headers = {"upload-offset": length if offset is None else str(offset), "upload-length": length}
        if declaration.metadata:
            headers["upload-metadata"] = declaration.metadata
        if offset is not None and offset < declaration.length:
            headers["upload-expires"] = expires(bounds)
        return Response(status_code=200, headers={**headers, "cache-control": "no-store"})

    @tus.patch(
        "/{upload}",
        status_code=204,
        response_class=Response,
        summary="Continue an upload",
        responses=error_responses(400, 404, 408, 409, 412, 413, 415, 423, 460, 507),
    )
    async def patch(request: Request, root: Root, upload: str) -> Response:
        if request.headers.get("content-type") != BODY_TYPE:
            raise Problem(415, "Wrong content type", f"Send the bytes as {BODY_TYPE}.")
        at = read_number(request, "upload-offset")
        async with turn_at(root, upload) as turn:
            offset = await receive(root, upload, at, request, turn, bounds, ledger)
        return Response(status_code=204, headers={"upload-offset": str(offset), "upload-expires": expires(bounds)})

    @tus.delete(
        "/{upload}",
        status_code=204,
        response_class=Response,
        summary="Cancel an upload",
        responses=error_responses(404, 409, 412, 423),
    )
    async def terminate(root: Root, upload: str) -> Response:
        async with turn_at(root, upload):
            await asyncio.to_thread(abandon, root, upload, ledger)
        return Response(status_code=204)

    @tus.post("/{upload}", status_code=204, response_class=Response, include_in_schema=False)
    async def override_method(request: Request, root: Root, upload: str) -> Response:
        """X-HTTP-Method-Override of the protocol, for clients that can only POST."""
        method = request.headers.get("x-http-method-override", "").upper()
        if method == "PATCH":
            return await patch(request, root, upload)
        if method == "DELETE":
            return await terminate(root, upload)
        raise Problem(405, "", "Use PATCH.", {"allow": "HEAD, PATCH, DELETE"})

    project_router.include_router(tus)
    project_router.include_router(files.router(root_of, bounds, ledger))
    return project_router


# -- request headers -------------------------------------------------------------------------------------------------


def read_number(request: Request, header: str) -> int:
    value = request.headers.get(header, "")
    if not DECIMAL.fullmatch(value):
        raise Problem(400, "Header missing", f"{header.title()} must be a number of bytes.")
    return int(value)


def parse_declaration(request: Request, overwrite: bool) -> Declaration:
    """Read the declaration from the headers of a POST. Raises Problem 400, 415 or 422."""
    if "upload-defer-length" in request.headers:
        raise Problem(400, "Length needed", "Send Upload-Length; uploads of unknown length are not supported.")
    length = read_number(request, "upload-length")
    header = request.headers.get("upload-metadata", "")
    if len(header) > MAX_METADATA_CHARS:
        raise Problem(400, "Header too long", f"Upload-Metadata has at most {MAX_METADATA_CHARS} characters.")
    metadata: dict[str, str] = {}
    try:
        for pair in filter(None, header.split(",")):
            key, _, value = pair.strip().partition(" ")
            metadata[key] = base64.b64decode(value, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise Problem(400, "Header not understood", "Upload-Metadata holds 'key base64' pairs.") from None
    name = metadata.get("filename") or metadata.get("name")
    if not name:
        raise Problem(400, "Name needed", "Upload-Metadata must have a filename.")
    parts = filenames.parts_of(name)
    filenames.suffix_of(parts)
    return Declaration(name="/".join(parts), length=length, overwrite=overwrite, metadata=header)


def checksum(request: Request) -> tuple[Any, bytes] | None:
    """The hash object and the expected digest of the Upload-Checksum header. Raises Problem 400 if it is invalid."""
    header = request.headers.get("upload-checksum")
    if header is None:
        return None
    name, _, value = header.partition(" ")
    try:
        return ALGORITHMS[name](), base64.b64decode(value, validate=True)
    except (KeyError, binascii.Error):
        raise Problem(400, "Checksum not understood", f"Supported: {', '.join(ALGORITHMS)}, in base64.") from None


def expires(limits: Limits) -> str:
    return formatdate(time.time() + limits.expire_seconds, usegmt=True)


def no_such_upload() -> Problem:
    return Problem(404, "No such upload", "There is no such upload in this project; it may have expired.")


# -- files on disk ---------------------------------------------------------------------------------------------------


async def receive(
    root: Path, upload: str, at: int, request: Request | None, turn: WriteTurn, limits: Limits, ledger: QuotaLedger
) -> int:
    """Write a body into an upload from byte `at` on, and return the new offset. A complete file is moved into place."""
    expected = checksum(request) if request is not None else None
    descriptor, declaration = await asyncio.to_thread(open_partial, root, upload, at)
    try:
        suffix = filenames.suffix_of(filenames.parts_of(declaration.name))
        check_head = partial(content_type.check_head, suffix=suffix)
        sink = FileSink(
            descriptor, at, declaration.length, limits, check_head, digest=expected[0] if expected else None
        )
        is_verified = expected is None
        try:
            if request is not None:
                await write_body(request, sink, turn)
            if expected is not None:
                if expected[0].digest() != expected[1]:
                    raise Problem(460, "Checksum mismatch", "The received bytes differ from those that were sent.")
                is_verified = True
        finally:
            if not is_verified:
                os.ftruncate(descriptor, at)
        await asyncio.to_thread(os.fsync, descriptor)  # a reported offset must be on disk
    except Problem as problem:
        if problem.status_code == 415:  # the file has the wrong type: remove the upload
            await asyncio.to_thread(abandon, root, upload, ledger)
        raise
    finally:
        os.close(descriptor)
    if sink.at == declaration.length:
        await asyncio.to_thread(finish, root, upload, declaration, limits, ledger)
    return sink.at


def create_partial(root: Path, upload: str, declaration: Declaration, ledger: QuotaLedger) -> None:
    """Create an empty partial file, then its declaration; an upload exists once its declaration does."""
    parts = filenames.parts_of(declaration.name)
    project_files.check_free_name(root, parts, declaration.overwrite)
    with safe_open.folder(root, (project_files.UPLOADS,), make=True) as folder:
        if ledger.is_sweep_due(root):
            sweep(folder, ledger.limits.expire_seconds)
        check_free(folder, declaration.length, ledger.limits)
        ledger.reserve(root, declaration.length, 1)
        try:
            os.close(safe_open.file(folder, upload, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            write_declaration(folder, upload, declaration)
        except BaseException:
            safe_open.remove(folder, upload)
            ledger.release(root, declaration.length, 1)
            raise


def write_declaration(folder: int, upload: str, declaration: Declaration) -> None:
    """Write a new file and rename it. It is not synced: after a power cut a client may have to start again."""
    new_name = f"{upload}.json.new"
    descriptor = safe_open.file(folder, new_name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        os.write(descriptor, declaration.model_dump_json().encode())
    finally:
        os.close(descriptor)
    os.rename(new_name, f"{upload}.json", src_dir_fd=folder, dst_dir_fd=folder)


def read_declaration(folder: int, upload: str) -> Declaration:
    try:
        descriptor = safe_open.file(folder, f"{upload}.json", os.O_RDONLY)
        with os.fdopen(descriptor, "rb") as file:
            return Declaration.model_validate_json(file.read(MAX_DECLARATION_BYTES))
    except (FileNotFoundError, ValidationError):
        raise no_such_upload() from None


def read_state(root: Path, upload: str) -> tuple[Declaration, int | None]:
    """The declaration and the number of received bytes, None if the file is in place. Raises Problem 404."""
    try:
        with safe_open.folder(root, (project_files.UPLOADS,)) as folder:
            declaration = read_declaration(folder, upload)
            status = safe_open.status(folder, upload)
    except FileNotFoundError:
        raise no_such_upload() from None
    if status is None and not declaration.done:
        raise no_such_upload()
    return declaration, None if status is None else status.st_size


def open_partial(root: Path, upload: str, at: int) -> tuple[int, Declaration]:
    """Open the partial file, and lock it against other server processes. Raises Problem 404, 409 or 423."""
    try:
        with safe_open.folder(root, (project_files.UPLOADS,)) as folder:
            declaration = read_declaration(folder, upload)
            descriptor = safe_open.file(folder, upload, os.O_RDWR)
    except FileNotFoundError:
        raise no_such_upload() from None
    try:
        project_files.lock(descriptor)
        size = os.fstat(descriptor).st_size
        if size != at:
            raise Problem(409, "Wrong offset", f"The upload is at byte {size}, not {at}.", {"upload-offset": str(size)})
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, declaration


def finish(root: Path, upload: str, declaration: Declaration, limits: Limits, ledger: QuotaLedger) -> None:
    """Check a complete file and move it into place. Removes it and raises Problem if its content is not acceptable.

    Safe to repeat after a kill at any point.
    """
    parts = filenames.parts_of(declaration.name)
    with safe_open.folder(root, (project_files.UPLOADS,)) as folder:
        try:
            descriptor = safe_open.file(folder, upload, os.O_RDWR)
            try:
                content_type.check(descriptor, filenames.suffix_of(parts), limits.pixels)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            write_declaration(folder, upload, declaration.model_copy(update={"done": True}))
            _, replaced_bytes = project_files.move_into_place(root, folder, upload, parts, declaration.overwrite)
        except Problem:
            safe_open.remove(folder, upload)
            safe_open.remove(folder, f"{upload}.json")
            ledger.release(root, declaration.length, 1)
            raise
    if replaced_bytes is not None:
        ledger.release(root, replaced_bytes, 1)


def abandon(root: Path, upload: str, ledger: QuotaLedger) -> None:
    declaration, offset = read_state(root, upload)
    with safe_open.folder(root, (project_files.UPLOADS,)) as folder:
        safe_open.remove(folder, f"{upload}.json")
        safe_open.remove(folder, upload)
        os.fsync(folder)
    if offset is not None:
        ledger.release(root, declaration.length, 1)


def sweep(folder: int, seconds: float) -> None:
    """Remove uploads without progress for `seconds`, and files without their pair after ORPHAN_EXPIRY_S."""
    names = set(safe_open.list_names(folder))
    for name in names:
        upload = name.partition(".")[0]
        is_resumable = {upload, f"{upload}.json"} <= names and not name.endswith(".new")
        pair = (upload, f"{upload}.json") if is_resumable else (name,)
        times = [status.st_mtime for file in pair if (status := safe_open.status(folder, file)) is not None]
        if times and time.time() - max(times) > (seconds if is_resumable else ORPHAN_EXPIRY_S):
            safe_open.remove(folder, name)


def count_usage(root: Path) -> tuple[int, int]:
    """(bytes, files) of a project: complete files, and the declared sizes of unfinished uploads."""
    total_bytes, total_files = 0, 0
    for _, status in project_files.walk(root):
        total_bytes, total_files = total_bytes + status.st_size, total_files + 1
    with contextlib.suppress(FileNotFoundError), safe_open.folder(root, (project_files.UPLOADS,)) as folder:
        for name in safe_open.list_names(folder):
            partial_status = safe_open.status(folder, name) if UPLOAD_ID.fullmatch(name) else None
            if partial_status is not None:
                declared_bytes = 0
                with contextlib.suppress(Problem):
                    declared_bytes = read_declaration(folder, name).length
                total_bytes += max(declared_bytes, partial_status.st_size)
                total_files += 1
    return total_bytes, total_files
