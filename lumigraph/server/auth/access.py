"""Who may talk to the server: the door in front of every HTTP request and every WebSocket.

A server on somebody's own machine is reachable by every web page that this person visits. Four things keep them out:
the Host header must be one of ours (against DNS rebinding), an Origin header must be one of ours (against other pages),
a token is needed (against other users and programs), and an unsafe request that comes with a cookie must prove that one
of our own pages sent it (SameSite looks at the host but not at the port, so another local server would pass it).

`Guard` wraps the whole application, outermost, so that its headers stand on error pages too:

    asgi = Guard(app, token_file(path), allowed_hosts("127.0.0.1", 7007))
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lumigraph.server.files.body_writer import LingeringResponse
from lumigraph.server.problems import Problem, answer
from lumigraph.server.static_pages import login

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
WILDCARDS = frozenset({"", "0.0.0.0", "::", "[::]"})
DEFAULT_PORTS = {"http": "80", "https": "443"}

# Paths whose bodies are streamed to disk, and counted there.
STREAMED = re.compile(r"(/[^/]+)*/projects/[^/]+/(uploads|files)(/.*)?", re.DOTALL)

SECURITY = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "content-security-policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
}
ASKED = (
    "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, If-Range, Range, Tus-Resumable, "
    "Upload-Checksum, Upload-Defer-Length, Upload-Length, Upload-Metadata, Upload-Offset, X-HTTP-Method-Override"
)
TOLD = (
    "Accept-Ranges, Content-Disposition, Content-Range, ETag, Last-Modified, Location, Retry-After, Tus-Extension, "
    "Tus-Max-Size, Tus-Resumable, Tus-Version, Upload-Expires, Upload-Length, Upload-Metadata, Upload-Offset"
)
LOGIN = "Open the link that the server printed at its start, or send the header 'Authorization: Bearer TOKEN'."


def allowed_hosts(host: str, port: int, urls: Iterable[str] = ()) -> dict[str, str]:
    """Host headers to accept, each with the scheme that browsers reach it by. A server bound to `host`:`port` has the
    loopback names and its own; `urls` are further ones, as of a proxy before it: https://studio.example.org. A wildcard
    address names nobody. Raises ValueError where something is not the URL of a server."""
    names = {"localhost", "127.0.0.1", "[::1]"}
    if host not in WILDCARDS:
        names.add(f"[{host}]" if ":" in host and not host.startswith("[") else host)
    found = {f"{name}:{port}".lower(): "http" for name in names}
    if port == 80:  # browsers leave the usual port out
        found |= {name.lower(): "http" for name in names}
    for url in urls:
        parts = urlsplit(url.rstrip("/"))
        plain = url.rstrip("/") == f"{parts.scheme}://{parts.netloc}" and parts.hostname and "@" not in parts.netloc
        if parts.scheme not in DEFAULT_PORTS or not plain:
            raise ValueError(f"{url!r} is not the address of a server; it looks like https://studio.example.org")
        found[parts.netloc.lower().removesuffix(f":{DEFAULT_PORTS[parts.scheme]}")] = parts.scheme
    return found


def cookie_name(host: str, scheme: str) -> str:
    """Cookies are shared by all ports of a host: the port in the name keeps two servers apart."""
    port = host.rpartition(":")[2]
    return f"lumigraph-{port if port.isdigit() else DEFAULT_PORTS.get(scheme, '80')}"


def cookie_value(token: str) -> str:
    """What the browser keeps: made of the token, so that it ends with it, yet not the token."""
    return hmac.new(token.encode(), b"lumigraph cookie", hashlib.sha256).hexdigest()


class Guard:
    """Pure ASGI middleware. `token` is the secret or gives it (an empty one lets nobody in); `hosts` are exact Host
    headers in lower case, each with its scheme; `origins` are other web origins (scheme://host[:port]) that may use the
    interface with a bearer token; `open_paths` need no token, yet a right Host. Bodies outside `streamed` paths end at
    `body_bytes`, with 413, or after `body_seconds` without a byte, with 408."""

    def __init__(
        self,
        app: ASGIApp,
        token: str | Callable[[], str],
        hosts: Mapping[str, str],
        origins: Collection[str] = (),
        open_paths: Collection[str] = ("/healthz",),
        *,
        body_bytes: int = 1_000_000,
        body_seconds: float = 30.0,
        streamed: re.Pattern[str] = STREAMED,
    ) -> None:
        if "*" in origins or "null" in origins or "*" in hosts:
            raise ValueError("hosts and origins are exact: * and null are not taken")
        self.app = app
        self.token: Callable[[], str] = token if callable(token) else lambda: token
        self.hosts = dict(hosts)
        self.origins = frozenset(origin.lower().rstrip("/") for origin in origins)
        self.open_paths = frozenset(open_paths)
        self.body_bytes = body_bytes
        self.body_seconds = body_seconds
        self.streamed = streamed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        given = take_token(scope)
        headers = Headers(scope=scope)
        try:
            answered = self.check(scope, headers, given)
        except Problem as problem:
            page = login(scope["path"], headers) if problem.status_code == 401 and reads(scope) else None
            answered = page or refusal(scope, problem)
        if scope["type"] == "websocket":
            if answered is None:
                await self.app(scope, receive, self.while_valid(send))
            else:
                await send({"type": "websocket.close", "code": 1008, "reason": ""})  # before accept: a 403
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.add_headers(MutableHeaders(scope=message), headers)
            await send(message)

        if answered is not None:
            await answered(scope, receive, send_with_headers)
        elif self.streamed.fullmatch(scope["path"]):
            await self.app(scope, receive, send_with_headers)
        else:
            await self.limited(scope, headers, receive, send_with_headers)

    def while_valid(self, send: Send) -> Send:
        """For a socket, which may be open for days: another token ends it with its next message."""
        token = self.token()

        async def checked(message: Message) -> None:
            if self.token() != token:
                await send({"type": "websocket.close", "code": 1008, "reason": "another token is needed"})
                raise ConnectionError("the token has changed")  # which the application takes for a lost connection
            await send(message)

        return checked

    def check(self, scope: Scope, headers: Headers, given: str | None) -> Response | None:
        """None: come in. A response: that is all you get. Raises Problem where the door stays shut."""
        host = self.right_host(headers)
        scope["scheme"] = self.hosts[host].replace("http", "ws") if scope["type"] == "websocket" else self.hosts[host]
        origin = self.right_origin(headers, host)
        method = scope.get("method", "GET")  # a WebSocket begins as a GET
        if method == "OPTIONS" and origin in self.origins and "access-control-request-method" in headers:
            allow = {"access-control-allow-methods": "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"}
            return Response(
                status_code=204,
                headers={**allow, "access-control-allow-headers": ASKED, "access-control-max-age": "600"},
            )
        socket = scope["type"] == "websocket"
        if scope["path"] in self.open_paths and not socket and method in SAFE_METHODS:
            return None
        token = self.token()
        if given is not None and (socket or method in ("GET", "HEAD")):
            if not same(given, token):
                raise Problem(401, "Wrong token", LOGIN, {"www-authenticate": 'Bearer realm="lumigraph"'})
            return None if socket else welcome(scope, host, token)
        bearer = [value[7:].strip() for value in headers.getlist("authorization") if value[:7].lower() == "bearer "]
        if len(bearer) == 1 and same(bearer[0], token):
            return None
        name = cookie_name(host, self.hosts[host])
        if token and any(same(value, cookie_value(token)) for value in cookies(headers, name)):
            sent_by_us(scope, method, headers, origin)
            return None
        raise Problem(401, "Token needed", LOGIN, {"www-authenticate": 'Bearer realm="lumigraph"'})

    def right_host(self, headers: Headers) -> str:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or hosts[0].lower() not in self.hosts:
            raise Problem(403, "Host not allowed", "This server does not answer to that name.")
        return hosts[0].lower()

    def right_origin(self, headers: Headers, host: str) -> str | None:
        """The Origin where there is one; raises where it is neither ours nor configured. 'null' is nobody's."""
        found = headers.getlist("origin")
        if not found:
            return None
        origin = found[0].lower()
        if len(found) > 1 or (origin != f"{self.hosts[host]}://{host}" and origin not in self.origins):
            raise Problem(403, "Origin not allowed", "Pages of that origin may not use this server.")
        return origin

    def add_headers(self, out: MutableHeaders, asked: Headers) -> None:
        for name, value in SECURITY.items():
            out.setdefault(name, value)
        if self.origins:
            out.add_vary_header("Origin")
            origins = asked.getlist("origin")
            if len(origins) == 1 and origins[0].lower() in self.origins:
                out["access-control-allow-origin"] = origins[0]
                out["access-control-expose-headers"] = TOLD

    async def limited(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        """The application, with a body that ends in time: a JSON document, not a film."""
        too_large = Problem(
            413,
            "Body too large",
            f"At most {self.body_bytes:,} bytes are taken here; files go to /uploads.",
        )
        started, came, more = False, 0, True

        async def counted() -> Message:
            nonlocal came, more
            if not more:  # waiting for the end of the connection may last
                return await receive()
            try:
                async with asyncio.timeout(self.body_seconds):
                    message = await receive()
            except TimeoutError:
                raise Problem(408, "Body too slow", "The rest of the body did not come.") from None
            if message["type"] == "http.request":
                came += len(message.get("body", b""))
                more = message.get("more_body", False)
                if came > self.body_bytes:
                    raise too_large
            return message

        async def noted(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        declared = headers.get("content-length", "0")
        try:
            if declared.isdecimal() and int(declared[:20]) > self.body_bytes:
                raise too_large
            await self.app(scope, counted, noted)
        except Problem as problem:
            if started:
                raise
            await refusal(scope, problem)(scope, receive, noted)


def reads(scope: Scope) -> bool:
    return scope["type"] == "http" and scope["method"] in ("GET", "HEAD")


def refusal(scope: Scope, problem: Problem) -> Response:
    """The problem; and, where a body may be on its way that nobody will read, the end of the connection."""
    refused = answer(problem, scope["path"])
    return refused if scope.get("method", "GET") in SAFE_METHODS else LingeringResponse(refused)


def take_token(scope: Scope) -> str | None:
    """Take `token=` out of the query, in place: the server's log writes down the same scope when it answers."""
    query = scope.get("query_string", b"")
    if b"token" not in query and b"%" not in query:
        return None
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    tokens = [value for name, value in pairs if name == "token"]
    if not tokens:
        return None
    scope["query_string"] = urlencode([pair for pair in pairs if pair[0] != "token"]).encode("latin-1")
    return tokens[0] if len(tokens) == 1 else ""


def same(given: str, secret: str) -> bool:
    """In a time that says nothing about the secret. An empty secret equals nothing."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), secret.encode()) and bool(secret)


def cookies(headers: Headers, name: str) -> list[str]:
    pairs = [part.partition("=") for line in headers.getlist("cookie") for part in line.split(";")]
    return [value.strip() for key, _, value in pairs if key.strip() == name]


def welcome(scope: Scope, host: str, token: str) -> Response:
    """To the same page without the token, which thereby stays out of the history and of what others see."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    path = "/" + raw.decode("latin-1").lstrip("/\\")  # '//evil.example/' would lead to another host
    query = scope["query_string"].decode("latin-1")
    response = RedirectResponse(path + (f"?{query}" if query else ""), 303)
    secure = scope["scheme"] == "https"
    name = cookie_name(host, scope["scheme"])
    response.set_cookie(name, cookie_value(token), path="/", secure=secure, httponly=True, samesite="strict")
    return response


def sent_by_us(scope: Scope, method: str, headers: Headers, origin: str | None) -> None:
    """Raises unless a cookie came with a request that one of our pages sent, or with a person's own navigation.

    Browsers set Sec-Fetch-*, pages cannot. A browser too old for them sends Origin with unsafe requests.
    """
    if origin is not None:
        return  # it was compared with ours before
    if scope["type"] == "websocket":
        raise Problem(403, "Origin needed", "A WebSocket that comes with a cookie needs an Origin.")
    site = headers.get("sec-fetch-site")
    if method not in SAFE_METHODS:
        if site != "same-origin":
            raise Problem(403, "Origin needed", "A change that is asked for with a cookie needs an Origin of ours.")
    elif site in ("cross-site", "same-site") and headers.get("sec-fetch-mode") != "navigate":
        raise Problem(403, "Origin not allowed", "Pages of another origin may not read this server.")
