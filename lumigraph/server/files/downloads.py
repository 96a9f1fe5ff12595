"""File downloads with Range requests and ETags (RFC 9110, chapters 13 and 14).

Only the table INLINE decides on content types. All other files, and all uploads, are attachments. No file becomes a
page of the server's origin: each response has `nosniff` and a sandbox.
"""

from __future__ import annotations

import asyncio
import os
import re
from email.utils import formatdate, parsedate_to_datetime
from io import FileIO
from pathlib import Path
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from lumigraph.server.files import safe_open
from lumigraph.server.problems import Problem

READ_CHUNK_BYTES = 1 << 20
MAX_RANGE_CHARS = 100  # of a Range header

# Content types that a browser may show inline. HTML pages are outputs of jobs: in their sandbox they have no origin,
# may run their own scripts, and cannot send requests.
INLINE = {
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "mp4": "video/mp4",
    "html": "text/html; charset=utf-8",
    "json": "application/json",
    "ply": "application/octet-stream",
    "spz": "application/octet-stream",
    "glb": "model/gltf-binary",
}
SANDBOX = "sandbox"
PAGE_SANDBOX = (
    "sandbox allow-scripts; default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
)
ATTACHMENT_TYPE = "application/octet-stream"
SINGLE_RANGE = re.compile(r"bytes=\s*(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))\s*", re.IGNORECASE | re.ASCII)
UNSAFE_NAME_CHARACTER = re.compile(r"[^A-Za-z0-9._ ()+,=@~!-]")


def etag(status: os.stat_result) -> str:
    """A strong ETag. Files are replaced, never rewritten, so other bytes have another time, inode or size."""
    return f'"{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}"'


def send_file(
    request: Request,
    root: Path,
    name: str,
    *,
    filename: str | None = None,
    inline: bool = False,
    sha256: str | None = None,
) -> Response:
    """The response to a GET or HEAD for the file `name` (parts separated by /) below the folder `root`.

    `filename` is the suggested name for saving. `inline` lets the browser show harmless types; it must be False for
    uploads. `sha256`, if known, becomes the ETag. Raises Problem 404 if the file does not exist, 409 if its path has a
    link, and 416 for a range beyond its end.
    """
    parts = name.split("/")
    try:
        with safe_open.folder(root, parts[:-1]) as folder:
            descriptor = safe_open.file(folder, parts[-1], os.O_RDONLY)
    except (FileNotFoundError, ValueError):
        raise Problem(404, "No such file", f"There is no file {name!r}.") from None
    file = os.fdopen(descriptor, "rb", buffering=0)  # closed with the response, or by the garbage collector
    status = os.fstat(descriptor)
    tag = f'"{sha256}"' if sha256 else etag(status)
    suffix = parts[-1].rpartition(".")[2].lower()
    is_inline = inline and suffix in INLINE
    headers = {
        "content-type": INLINE[suffix] if is_inline else ATTACHMENT_TYPE,
        "content-disposition": disposition(filename or parts[-1], "inline" if is_inline else "attachment"),
        "etag": tag,
        "last-modified": formatdate(int(status.st_mtime), usegmt=True),
        "accept-ranges": "bytes",
        "cache-control": "private, no-cache",
        "x-content-type-options": "nosniff",
        "content-security-policy": PAGE_SANDBOX if is_inline and suffix == "html" else SANDBOX,
    }
    if is_unchanged(request, tag, int(status.st_mtime)):
        file.close()
        cache_headers = ("etag", "last-modified", "cache-control", "content-security-policy", "x-content-type-options")
        return Response(status_code=304, headers={key: headers[key] for key in cache_headers})
    try:
        byte_range = parse_range(request, tag, headers["last-modified"], status.st_size)
    except Problem:
        file.close()
        raise
    start, end = byte_range or (0, status.st_size)
    headers["content-length"] = str(end - start)
    if byte_range:
        headers["content-range"] = f"bytes {start}-{end - 1}/{status.st_size}"
    return RangeResponse(file, start, end, 206 if byte_range else 200, headers)


def is_unchanged(request: Request, tag: str, mtime: int) -> bool:
    """Whether the client's copy is current. The ETag decides; the date counts only in a request without an ETag."""
    conditions = request.headers.getlist("if-none-match")
    if conditions:
        tags = [item.strip().removeprefix("W/") for item in ",".join(conditions).split(",")]
        return "*" in tags or tag in tags
    try:
        since = parsedate_to_datetime(request.headers["if-modified-since"])
        return mtime <= since.timestamp()
    except (KeyError, ValueError, TypeError, OverflowError):
        return False


def parse_range(request: Request, tag: str, mtime: str, size: int) -> tuple[int, int] | None:
    """(first byte, one past the last), or None for the whole file. Raises Problem 416 if the range is beyond the end.

    A request for several ranges gets the whole file: such requests are costly, and no client needs them.
    """
    ranges = request.headers.getlist("range")
    if request.method != "GET" or len(ranges) != 1 or len(ranges[0]) > MAX_RANGE_CHARS:
        return None
    match = SINGLE_RANGE.fullmatch(ranges[0])
    if match is None:
        return None
    condition = request.headers.get("if-range")
    if condition is not None and condition not in (tag, mtime):
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        start, end = max(0, size - int(suffix)), size
        if size == 0 and int(suffix):
            return None
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < int(first):
            return None
    if start >= end:
        raise Problem(416, "", f"The file has {size} bytes.", {"content-range": f"bytes */{size}"})
    return start, end


def disposition(filename: str, kind: str) -> str:
    """The Content-Disposition header (RFC 6266 and 8187): an ASCII name for old clients, the exact one for others."""
    plain = UNSAFE_NAME_CHARACTER.sub("_", filename.rpartition("/")[2])
    exact = quote(filename.rpartition("/")[2], safe="", errors="replace")
    return f'{kind}; filename="{plain}"' + ("" if plain == exact else f"; filename*=UTF-8''{exact}")


class RangeResponse(Response):
    """A response with the bytes of an open file from `start` to `end`, read in chunks in worker threads."""

    def __init__(self, file: FileIO, start: int, end: int, status: int, headers: dict[str, str]) -> None:
        super().__init__(status_code=status)
        self.file = file
        self.start, self.end = start, end
        self.raw_headers = [(key.encode("latin-1"), value.encode("latin-1")) for key, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self.file:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            at = self.start if scope["method"] != "HEAD" else self.end
            disconnect = asyncio.ensure_future(wait_for_disconnect(receive))  # `send` does not report it
            try:
                await self.send_chunks(at, disconnect, send)
            finally:
                disconnect.cancel()
            await send({"type": "http.response.body", "body": b""})

    async def send_chunks(self, at: int, disconnect: asyncio.Future[None], send: Send) -> None:
        while at < self.end and not disconnect.done():
            chunk = await asyncio.to_thread(os.pread, self.file.fileno(), min(READ_CHUNK_BYTES, self.end - at), at)
            if not chunk:
                raise RuntimeError("a file became shorter while it was sent")  # aborts the connection
            at += len(chunk)
            await send({"type": "http.response.body", "body": chunk, "more_body": True})


async def wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
