"""Files out: whole, in part, or not at all because the client has them (RFC 9110, chapters 13 and 14).

The kind of a file is said by our own table and by nothing else; what is not in it, and everything that users brought,
is an attachment. No file is ever a page of this origin: `nosniff` and a sandbox stand on each answer.
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

PIECE = 1 << 20

# What a browser may show in place. A page is one that jobs made: in its sandbox it belongs to no origin, its own script
# runs, and nothing can be asked of anybody.
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
ATTACHED = "application/octet-stream"
ONE_RANGE = re.compile(r"bytes=\s*(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))\s*", re.IGNORECASE | re.ASCII)
FALLBACK = re.compile(r"[^A-Za-z0-9._ ()+,=@~!-]")


def etag(status: os.stat_result) -> str:
    """A strong one: other bytes have another time, inode or size, since files are replaced and never rewritten."""
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
    """The answer to a GET or HEAD for the file `name` (parts separated by /) below the folder `root`.

    `filename` is what it is called when it is saved. `inline` shows it in the browser where its kind is harmless; leave
    it out for what users brought. `sha256`, where known, is its ETag. Raises Problem 404 where there is no such file,
    409 where a link lies in its way, 416 for a range beyond its end.
    """
    parts = name.split("/")
    try:
        with safe_open.folder(root, parts[:-1]) as folder:
            descriptor = safe_open.file(folder, parts[-1], os.O_RDONLY)
    except (FileNotFoundError, ValueError):
        raise Problem(404, "No such file", f"There is no file {name!r}.") from None
    file = os.fdopen(descriptor, "rb", buffering=0)  # closed with the response, or when nobody holds it any more
    status = os.fstat(descriptor)
    tag = f'"{sha256}"' if sha256 else etag(status)
    suffix = parts[-1].rpartition(".")[2].lower()
    shown = inline and suffix in INLINE
    headers = {
        "content-type": INLINE[suffix] if shown else ATTACHED,
        "content-disposition": disposition(filename or parts[-1], "inline" if shown else "attachment"),
        "etag": tag,
        "last-modified": formatdate(int(status.st_mtime), usegmt=True),
        "accept-ranges": "bytes",
        "cache-control": "private, no-cache",
        "x-content-type-options": "nosniff",
        "content-security-policy": PAGE_SANDBOX if shown and suffix == "html" else SANDBOX,
    }
    if unchanged(request, tag, int(status.st_mtime)):
        file.close()
        kept = ("etag", "last-modified", "cache-control", "content-security-policy", "x-content-type-options")
        return Response(status_code=304, headers={key: headers[key] for key in kept})
    try:
        wanted = part_of(request, tag, headers["last-modified"], status.st_size)
    except Problem:
        file.close()
        raise
    start, end = wanted or (0, status.st_size)
    headers["content-length"] = str(end - start)
    if wanted:
        headers["content-range"] = f"bytes {start}-{end - 1}/{status.st_size}"
    return RangeResponse(file, start, end, 206 if wanted else 200, headers)


def unchanged(request: Request, tag: str, modified: int) -> bool:
    """Whether the client has this very file. Its ETag decides; the date only where no ETag was sent."""
    given = request.headers.getlist("if-none-match")
    if given:
        tags = [one.strip().removeprefix("W/") for one in ",".join(given).split(",")]
        return "*" in tags or tag in tags
    try:
        since = parsedate_to_datetime(request.headers["if-modified-since"])
        return modified <= since.timestamp()
    except (KeyError, ValueError, TypeError, OverflowError):
        return False


def part_of(request: Request, tag: str, modified: str, size: int) -> tuple[int, int] | None:
    """(first byte, one past the last), or None for the whole file: also for several ranges in one request, which cost a
    server much and serve nobody here. Raises Problem 416."""
    given = request.headers.getlist("range")
    if request.method != "GET" or len(given) != 1 or len(given[0]) > 100:
        return None
    found = ONE_RANGE.fullmatch(given[0])
    if found is None:
        return None
    condition = request.headers.get("if-range")
    if condition is not None and condition not in (tag, modified):
        return None
    first, last, suffix = found.groups()
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
    """RFC 6266 and 8187: a plain name for old clients, the true one for all others."""
    plain = FALLBACK.sub("_", filename.rpartition("/")[2])
    exact = quote(filename.rpartition("/")[2], safe="", errors="replace")
    return f'{kind}; filename="{plain}"' + ("" if plain == exact else f"; filename*=UTF-8''{exact}")


class RangeResponse(Response):
    """The bytes of an open file from `start` to `end`, read in pieces in other threads."""

    def __init__(self, file: FileIO, start: int, end: int, status: int, headers: dict[str, str]) -> None:
        super().__init__(status_code=status)
        self.file = file
        self.start, self.end = start, end
        self.raw_headers = [(key.encode("latin-1"), value.encode("latin-1")) for key, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self.file:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            at = self.start if scope["method"] != "HEAD" else self.end
            gone = asyncio.ensure_future(left(receive))  # nobody says so to those who send
            try:
                await self.pieces(at, gone, send)
            finally:
                gone.cancel()
            await send({"type": "http.response.body", "body": b""})

    async def pieces(self, at: int, gone: asyncio.Future[None], send: Send) -> None:
        while at < self.end and not gone.done():
            piece = await asyncio.to_thread(os.pread, self.file.fileno(), min(PIECE, self.end - at), at)
            if not piece:
                raise RuntimeError("a file became shorter while it was sent")  # cuts the connection
            at += len(piece)
            await send({"type": "http.response.body", "body": piece, "more_body": True})


async def left(receive: Receive) -> None:
    """Returns when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
