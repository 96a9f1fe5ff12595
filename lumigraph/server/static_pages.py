"""The studio's pages: static files, built from `web/`.

One HTML file serves every address of the studio. The files that it loads have a content hash in their names, so
browsers may cache them for ever. The Content-Security-Policy forbids loading from other origins.
"""

from __future__ import annotations

import base64
import hashlib
import mimetypes
import re
import secrets
from html import escape
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.datastructures import Headers
from starlette.responses import FileResponse, HTMLResponse, Response

from lumigraph.server.problems import Problem

STATIC = Path(__file__).parent / "static"
ASSET_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
NONCE = "__NONCE__"  # placeholder in the built page, replaced by the nonce for styles
IMMUTABLE = "private, max-age=31536000, immutable"
CONTENT_TYPES = {".js": "text/javascript", ".css": "text/css", ".woff2": "font/woff2", ".svg": "image/svg+xml"}

# Spark decodes splats in WebAssembly, in a worker created from a blob: URL; its wasm is a data: URL.
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self' 'nonce-{nonce}'; style-src-attr "
    "'unsafe-inline'; img-src 'self' blob: data:; media-src 'self' blob:; font-src 'self'; connect-src 'self' blob: "
    "data:; worker-src 'self' blob:; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)

router = APIRouter(include_in_schema=False)


@router.get("/")
@router.get("/projects/{rest:path}")
def page() -> Response:
    """The page of every address; its router reads the path."""
    try:
        text = (STATIC / "index.html").read_text("utf-8")
    except FileNotFoundError:
        return plain_page("The studio's pages were not built", MISSING_PAGES, 503)
    nonce = secrets.token_urlsafe(16)
    headers = {"content-security-policy": POLICY.format(nonce=nonce), "cache-control": "no-cache"}
    return HTMLResponse(text.replace(NONCE, nonce), headers=headers)


@router.get("/assets/{name}")
@router.get("/{name}.svg")
def asset(request: Request, name: str) -> Response:
    """A file of the page, gzipped if the browser accepts it."""
    folder = STATIC / "assets" if request.url.path.startswith("/assets/") else STATIC
    file = folder / (name if folder != STATIC else f"{name}.svg")
    if not ASSET_NAME.fullmatch(file.name) or not file.is_file():
        raise Problem(404, "No such file", "The studio has no such file.")
    headers = {"cache-control": IMMUTABLE if folder != STATIC else "private, max-age=3600", "vary": "accept-encoding"}
    media_type = CONTENT_TYPES.get(file.suffix) or mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    gzip_file = file.with_name(f"{file.name}.gz")
    if "gzip" in request.headers.get("accept-encoding", "") and gzip_file.is_file():
        return FileResponse(gzip_file, headers={**headers, "content-encoding": "gzip"}, media_type=media_type)
    return FileResponse(file, headers=headers, media_type=media_type)


STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:34rem;margin:18vh auto 0;padding:0 1.5rem;color:#25221d;"
    "background:#fbfaf7}h1{font-size:1.25rem}p{color:#5f5a51}input{font:inherit;width:100%;box-sizing:border-box;"
    "padding:.6rem .7rem;border:1px solid #b9b2a6;border-radius:.5rem}button{font:inherit;font-weight:600;margin-top:"
    ".8rem;padding:.55rem 1.1rem;border:0;border-radius:.5rem;background:#f5b83d;color:#33260a;cursor:pointer}"
    "code{background:#efece5;padding:.1em .3em;border-radius:.3em}"
)
STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
MISSING_PAGES = "<p>The server works; its pages are missing. In a checkout, <code>make web</code> builds them.</p>"
LOGIN_FORM = """<p>Open the link that <code>lumigraph up</code> printed at its start, or enter its token.</p>
<form method="get" action="{path}"><label for="token">Token</label>
<input id="token" name="token" autocomplete="off" spellcheck="false" required autofocus>
<button>Open the studio</button></form>"""


def plain_page(title: str, body: str, status: int) -> Response:
    """A self-contained page. `body` is trusted HTML."""
    text = f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{STYLE}</style>"
    policy = f"default-src 'none'; style-src 'sha256-{STYLE_HASH}'; base-uri 'none'; form-action 'self'; "
    headers = {"content-security-policy": f"{policy}frame-ancestors 'none'"}
    return HTMLResponse(f"{text}<h1>{title}</h1>{body}", status, headers)


def login_page(path: str, headers: Headers) -> Response | None:
    """The form for the token, if a browser navigates here without one; None for other clients, which get an error."""
    if headers.get("sec-fetch-mode", "navigate") != "navigate" or "text/html" not in headers.get("accept", ""):
        return None
    safe_path = "/" + path.lstrip("/\\")
    return plain_page("Lumigraph needs its token", LOGIN_FORM.format(path=escape(safe_path, quote=True)), 401)
