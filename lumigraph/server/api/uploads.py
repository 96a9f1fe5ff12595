"""Resumable uploads by the tus protocol 1.0 (https://tus.io/protocols/resumable-upload): core, creation,
creation-with-upload, termination, expiration, checksum. `router()` also holds the plain PUT, GET, list and DELETE of
`files.py`.

A partial upload is two files in the project's folder `uploads/`: `ID` with the bytes that came, and `ID.json` with what
was declared. The length of `ID` is the offset: nothing else keeps it, so it is right after a kill at any moment. When
the last byte has come the file is checked, synced and renamed to its place in `files/`; a small `ID.json` stays for a
while, so that a client that lost the answer learns that it is done. Bytes that came with a checksum, and whose
connection broke before it could be compared, are dropped (after a kill of the server they stay, like those of a PATCH
without one).
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
from lumigraph.server.files.body_writer import FileSink, StreamedRoute, WriteTurn, pour
from lumigraph.server.files.quotas import Limits, QuotaLedger, check_free, check_size
from lumigraph.server.problems import Problem, documented

VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,termination,expiration,checksum"
BODY = "application/offset+octet-stream"
ALGORITHMS = {"sha1": hashlib.sha1, "sha256": hashlib.sha256}
ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
NUMBER = re.compile(r"[0-9]{1,18}", re.ASCII)
KEPT_SECONDS = 3600.0  # half of a pair: the note about a file that is done, or what a killed server left of a PUT
WAIT_SECONDS = 10.0


class Declared(BaseModel):
    """What is known of an upload, beside its bytes."""

    name: str
    length: int
    overwrite: bool = False
    metadata: str = ""  # the header as it came
    done: bool = False  # it has its place in files/, or is on its way there


class TusRoute(StreamedRoute):
    """Says the protocol's version with each answer, and refuses another one."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            headers = {"tus-resumable": VERSION}
            try:
                if request.method != "OPTIONS" and request.headers.get("tus-resumable") != VERSION:
                    headers["tus-version"] = VERSION
                    raise Problem(412, "Unknown protocol version", f"Say 'Tus-Resumable: {VERSION}'.")
                response = await handler(request)
            except Problem as problem:
                problem.headers = {**(problem.headers or {}), **headers}
                raise
            response.headers.update(headers)
            return response

        return handle


def router(folder_of: Callable[[str], Path], limits: Limits | None = None) -> APIRouter:
    """Routes below /projects/{project}: uploads and files. `folder_of` gives the folder of a project, which exists, or
    raises Problem 404; it is called in a thread."""
    bounds = limits or Limits()
    ledger = QuotaLedger(bounds, lambda root: count(root))
    turns: dict[tuple[Path, str], WriteTurn] = {}
    made = APIRouter(prefix="/projects/{project}", tags=["files"])
    tus = APIRouter(prefix="/uploads", route_class=TusRoute)

    def root_of(project: str) -> Path:
        return folder_of(project)

    Root = Annotated[Path, Depends(root_of)]

    @contextlib.asynccontextmanager
    async def turn_at(root: Path, upload: str) -> AsyncIterator[WriteTurn]:
        """Waits until whoever writes this upload has stopped, after asking for it."""
        if not ID.fullmatch(upload):
            raise no_such_upload()
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                while other := turns.get((root, upload)):
                    other.end()
                    await other.over.wait()
        except TimeoutError:
            raise Problem(423, "Busy", "Another request is still at this upload.", {"retry-after": "5"}) from None
        turns[root, upload] = turn = WriteTurn()
        try:
            yield turn
        finally:
            del turns[root, upload]
            turn.over.set()

    @tus.options("", status_code=204, summary="What the upload protocol offers here", responses=documented(404, 409))
    async def options(root: Root) -> Response:
        headers = {"tus-version": VERSION, "tus-extension": EXTENSIONS, "tus-max-size": str(bounds.file_bytes)}
        return Response(status_code=204, headers={**headers, "tus-checksum-algorithm": ",".join(ALGORITHMS)})

    @tus.post(
        "",
        status_code=201,
        response_class=Response,
        summary="Begin an upload",
        responses=documented(400, 404, 409, 412, 413, 415, 507),
    )
    async def create(request: Request, root: Root, overwrite: bool = False) -> Response:
        declared = declaration(request, overwrite)
        check_size(declared.length, bounds)
        upload = secrets.token_hex(16)
        await asyncio.to_thread(begin, root, upload, declared, ledger)
        headers = {"location": f"{request.url.path}/{upload}", "upload-expires": expires(bounds)}
        with_body = request.headers.get("content-type") == BODY
        if with_body or declared.length == 0:
            async with turn_at(root, upload) as turn:
                body = request if with_body else None
                offset = await receive(root, upload, 0, body, turn, bounds, ledger)
            headers["upload-offset"] = str(offset)
        return Response(status_code=201, headers=headers)

    @tus.head(
        "/{upload}", response_class=Response, summary="How far an upload has come", responses=documented(404, 409, 412)
    )
    async def head(root: Root, upload: str) -> Response:
        async with turn_at(root, upload):
            declared, offset = await asyncio.to_thread(state, root, upload)
            if (
                offset is not None and offset == declared.length
            ):  # the server was killed between the last byte and its place
                await asyncio.to_thread(finish, root, upload, declared, bounds, ledger)
        length = str(declared.length)
        headers = {"upload-offset": length if offset is None else str(offset), "upload-length": length}
        if declared.metadata:
            headers["upload-metadata"] = declared.metadata
        if offset is not None and offset < declared.length:
            headers["upload-expires"] = expires(bounds)
        return Response(status_code=200, headers={**headers, "cache-control": "no-store"})

    @tus.patch(
        "/{upload}",
        status_code=204,
        response_class=Response,
        summary="Go on with an upload",
        responses=documented(400, 404, 408, 409, 412, 413, 415, 423, 460, 507),
    )
    async def patch(request: Request, root: Root, upload: str) -> Response:
        if request.headers.get("content-type") != BODY:
            raise Problem(415, "Wrong content type", f"Send the bytes as {BODY}.")
        at = number(request, "upload-offset")
        async with turn_at(root, upload) as turn:
            offset = await receive(root, upload, at, request, turn, bounds, ledger)
        return Response(status_code=204, headers={"upload-offset": str(offset), "upload-expires": expires(bounds)})

    @tus.delete(
        "/{upload}",
        status_code=204,
        response_class=Response,
        summary="Give an upload up",
        responses=documented(404, 409, 412, 423),
    )
    async def terminate(root: Root, upload: str) -> Response:
        async with turn_at(root, upload):
            await asyncio.to_thread(abandon, root, upload, ledger)
        return Response(status_code=204)

    @tus.post("/{upload}", status_code=204, response_class=Response, include_in_schema=False)
    async def instead(request: Request, root: Root, upload: str) -> Response:
        """The protocol's way for clients that can only POST."""
        method = request.headers.get("x-http-method-override", "").upper()
        if method == "PATCH":
            return await patch(request, root, upload)
        if method == "DELETE":
            return await terminate(root, upload)
        raise Problem(405, "", "Use PATCH.", {"allow": "HEAD, PATCH, DELETE"})

    made.include_router(tus)
    made.include_router(files.router(root_of, bounds, ledger))
    return made


# -- what a request says ---------------------------------------------------------------------------------------------


def number(request: Request, header: str) -> int:
    value = request.headers.get(header, "")
    if not NUMBER.fullmatch(value):
        raise Problem(400, "Header missing", f"{header.title()} must be a number of bytes.")
    return int(value)


def declaration(request: Request, overwrite: bool) -> Declared:
    """What a POST declares. Raises Problem 400, 415 or 422."""
    if "upload-defer-length" in request.headers:
        raise Problem(400, "Length needed", "Say Upload-Length; uploads of unknown length are not taken.")
    length = number(request, "upload-length")
    header = request.headers.get("upload-metadata", "")
    if len(header) > 4096:
        raise Problem(400, "Header too long", "Upload-Metadata has at most 4096 characters.")
    told: dict[str, str] = {}
    try:
        for pair in filter(None, header.split(",")):
            key, _, value = pair.strip().partition(" ")
            told[key] = base64.b64decode(value, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise Problem(400, "Header not understood", "Upload-Metadata holds 'key base64' pairs.") from None
    name = told.get("filename") or told.get("name")
    if not name:
        raise Problem(400, "Name needed", "Upload-Metadata must have a filename.")
    parts = filenames.parts_of(name)
    filenames.suffix_of(parts)
    return Declared(name="/".join(parts), length=length, overwrite=overwrite, metadata=header)


def checksum(request: Request) -> tuple[Any, bytes] | None:
    """The hash to feed and what it shall give, of the Upload-Checksum header. Raises Problem 400."""
    header = request.headers.get("upload-checksum")
    if header is None:
        return None
    name, _, value = header.partition(" ")
    try:
        return ALGORITHMS[name](), base64.b64decode(value, validate=True)
    except (KeyError, binascii.Error):
        raise Problem(400, "Checksum not understood", f"Taken are: {', '.join(ALGORITHMS)}, in base64.") from None


def expires(limits: Limits) -> str:
    return formatdate(time.time() + limits.expire_seconds, usegmt=True)


def no_such_upload() -> Problem:
    return Problem(404, "No such upload", "There is no such upload in this project; it may have expired.")


# -- what lies on the disk -------------------------------------------------------------------------------------------


async def receive(
    root: Path, upload: str, at: int, request: Request | None, turn: WriteTurn, limits: Limits, ledger: QuotaLedger
) -> int:
    """The body into the upload, from byte `at` on, and the file to its place if that was all of it. The new offset."""
    expected = checksum(request) if request is not None else None
    descriptor, declared = await asyncio.to_thread(open_partial, root, upload, at)
    try:
        suffix = filenames.suffix_of(filenames.parts_of(declared.name))
        begins = partial(content_type.check_head, suffix=suffix)
        sink = FileSink(descriptor, at, declared.length, limits, begins, digest=expected[0] if expected else None)
        verified = expected is None
        try:
            if request is not None:
                await pour(request, sink, turn)
            if expected is not None:
                if expected[0].digest() != expected[1]:
                    raise Problem(460, "Checksum mismatch", "The bytes that came are not those that were sent.")
                verified = True
        finally:
            if not verified:
                os.ftruncate(descriptor, at)
        await asyncio.to_thread(os.fsync, descriptor)  # an offset that was told is on the disk
    except Problem as problem:
        if problem.status_code == 415:  # it begins like another kind of file: nothing to go on with
            await asyncio.to_thread(abandon, root, upload, ledger)
        raise
    finally:
        os.close(descriptor)
    if sink.at == declared.length:
        await asyncio.to_thread(finish, root, upload, declared, limits, ledger)
    return sink.at


def begin(root: Path, upload: str, declared: Declared, ledger: QuotaLedger) -> None:
    """An empty partial file, then its declaration: the second is what counts."""
    parts = filenames.parts_of(declared.name)
    project_files.check_free_name(root, parts, declared.overwrite)
    with safe_open.folder(root, (project_files.UPLOADS,), make=True) as folder:
        if ledger.due(root):
            sweep(folder, ledger.limits.expire_seconds)
        check_free(folder, declared.length, ledger.limits)
        ledger.take(root, declared.length, 1)
        try:
            os.close(safe_open.file(folder, upload, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            write_declaration(folder, upload, declared)
        except BaseException:
            safe_open.remove(folder, upload)
            ledger.give_back(root, declared.length, 1)
            raise


def write_declaration(folder: int, upload: str, declared: Declared) -> None:
    """Written beside and renamed. Not synced: what a power cut takes of it costs a client a new start, and no file."""
    beside = f"{upload}.json.new"
    descriptor = safe_open.file(folder, beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        os.write(descriptor, declared.model_dump_json().encode())
    finally:
        os.close(descriptor)
    os.rename(beside, f"{upload}.json", src_dir_fd=folder, dst_dir_fd=folder)


def read_declaration(folder: int, upload: str) -> Declared:
    try:
        descriptor = safe_open.file(folder, f"{upload}.json", os.O_RDONLY)
        with os.fdopen(descriptor, "rb") as file:
            return Declared.model_validate_json(file.read(64 << 10))
    except (FileNotFoundError, ValidationError):
        raise no_such_upload() from None


def state(root: Path, upload: str) -> tuple[Declared, int | None]:
    """What was declared, and how many bytes there are; None when the file has its place. Raises Problem 404."""
    try:
        with safe_open.folder(root, (project_files.UPLOADS,)) as folder:
            declared = read_declaration(folder, upload)
            came = safe_open.status(folder, upload)
    except FileNotFoundError:
        raise no_such_upload() from None
    if came is None and not declared.done:
        raise no_such_upload()
    return declared, None if came is None else came.st_size


def open_partial(root: Path, upload: str, at: int) -> tuple[int, Declared]:
    """The file to go on with, locked against other server processes. Raises Problem 404, 409 or 423."""
    try:
        with safe_open.folder(root, (project_files.UPLOADS,)) as folder:
            declared = read_declaration(folder, upload)
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
    return descriptor, declared


def finish(root: Path, upload: str, declared: Declared, limits: Limits, ledger: QuotaLedger) -> None:
    """Check a file that has all its bytes, and give it its place; or remove it, and raise what is wrong with it.

    Safe to repeat after a kill at any point.
    """
    parts = filenames.parts_of(declared.name)
    with safe_open.folder(root, (project_files.UPLOADS,)) as folder:
        try:
            descriptor = safe_open.file(folder, upload, os.O_RDWR)
            try:
                content_type.check(descriptor, filenames.suffix_of(parts), limits.pixels)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            write_declaration(folder, upload, declared.model_copy(update={"done": True}))
            _, replaced = project_files.place(root, folder, upload, parts, declared.overwrite)
        except Problem:
            safe_open.remove(folder, upload)
            safe_open.remove(folder, f"{upload}.json")
            ledger.give_back(root, declared.length, 1)
            raise
    if replaced is not None:
        ledger.give_back(root, replaced, 1)


def abandon(root: Path, upload: str, ledger: QuotaLedger) -> None:
    declared, offset = state(root, upload)
    with safe_open.folder(root, (project_files.UPLOADS,)) as folder:
        safe_open.remove(folder, f"{upload}.json")
        safe_open.remove(folder, upload)
        os.fsync(folder)
    if offset is not None:
        ledger.give_back(root, declared.length, 1)


def sweep(folder: int, seconds: float) -> None:
    """Remove uploads that nobody has gone on with for that long, and sooner what a killed server left of others, and
    the notes about files that have their place."""
    present = set(safe_open.listing(folder))
    for name in present:
        upload = name.partition(".")[0]
        unfinished = {upload, f"{upload}.json"} <= present and not name.endswith(".new")
        pair = (upload, f"{upload}.json") if unfinished else (name,)
        found = [status for one in pair if (status := safe_open.status(folder, one)) is not None]
        if found and time.time() - max(one.st_mtime for one in found) > (seconds if unfinished else KEPT_SECONDS):
            safe_open.remove(folder, name)


def count(root: Path) -> tuple[int, int]:
    """(bytes, files) of a project: complete files, and what unfinished uploads have declared."""
    size, many = 0, 0
    for _, status in project_files.walk(root):
        size, many = size + status.st_size, many + 1
    with contextlib.suppress(FileNotFoundError), safe_open.folder(root, (project_files.UPLOADS,)) as folder:
        for name in safe_open.listing(folder):
            status_there = safe_open.status(folder, name) if ID.fullmatch(name) else None
            if status_there is not None:
                declared = 0
                with contextlib.suppress(Problem):
                    declared = read_declaration(folder, name).length
                size, many = size + max(declared, status_there.st_size), many + 1
    return size, many
