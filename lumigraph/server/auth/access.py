"""Access control for every HTTP request and every WebSocket.

Every web page that a user visits can send requests to a server on the user's machine. Four checks reject them:
- The Host header must be a known name (against DNS rebinding).
- An Origin header must be a known origin (against other pages).
- A token is needed (against other users and programs).
- An unsafe request with a cookie must come from one of the server's own pages. SameSite is not enough: it compares the
  host but not the port, so pages of another local server would pass it.

`Guard` is the outermost layer around the application, so that error pages carry its headers too:

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
from lumigraph.server.problems import Problem, problem_response
from lumigraph.server.static_pages import login_page

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
WILDCARDS = frozenset({"", "0.0.0.0", "::", "[::]"})
DEFAULT_PORTS = {"http": "80", "https": "443"}

# Paths whose bodies are streamed to disk; the routes limit their size.
STREAMED_PATHS = re.compile(r"(/[^/]+)*/projects/[^/]+/(uploads|files)(/.*)?", re.DOTALL)

SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "content-security-policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
}
CORS_REQUEST_HEADERS = (
    "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, If-Range, Range, Tus-Resumable, "
    "Upload-Checksum, Upload-Defer-Length, Upload-Length, Upload-Metadata, Upload-Offset, X-HTTP-Method-Override"
)
CORS_RESPONSE_HEADERS = (
    "Accept-Ranges, Content-Disposition, Content-Range, ETag, Last-Modified, Location, Retry-After, Tus-Extension, "
    "Tus-Max-Size, Tus-Resumable, Tus-Version, Upload-Expires, Upload-Length, Upload-Metadata, Upload-Offset"
)
LOGIN_HINT = "Open the link that the server printed at its start, or send the header 'Authorization: Bearer TOKEN'."


def allowed_hosts(host: str, port: int, urls: Iterable[str] = ()) -> dict[str, str]:
    """The accepted Host headers, each with its scheme.

    A server bound to `host`:`port` accepts the loopback names and `host`, unless it is a wildcard address. `urls` adds
    further addresses, such as that of a proxy: https://studio.example.org. Raises ValueError if a URL has a path.
    """
    names = {"localhost", "127.0.0.1", "[::1]"}
    if host not in WILDCARDS:
        names.add(f"[{host}]" if ":" in host and not host.startswith("[") else host)
    schemes = {f"{name}:{port}".lower(): "http" for name in names}
    if port == 80:  # browsers omit the default port
        schemes |= {name.lower(): "http" for name in names}
    for url in urls:
        parts = urlsplit(url.rstrip("/"))
        is_origin = url.rstrip("/") == f"{parts.scheme}://{parts.netloc}" and parts.hostname and "@" not in parts.netloc
        if parts.scheme not in DEFAULT_PORTS or not is_origin:
            raise ValueError(f"{url!r} is not the address of a server; an example is https://studio.example.org")
        schemes[parts.netloc.lower().removesuffix(f":{DEFAULT_PORTS[parts.scheme]}")] = parts.scheme
    return schemes


def cookie_name(host: str, scheme: str) -> str:
    """The cookie's name. All ports of a host share cookies, so the name contains the port."""
    port = host.rpartition(":")[2]
    return f"lumigraph-{port if port.isdigit() else DEFAULT_PORTS.get(scheme, '80')}"


def cookie_value(token: str) -> str:
    """The cookie's value: derived from the token, so that a new token invalidates it, without revealing the token."""
    return hmac.new(token.encode(), b"lumigraph cookie", hashlib.sha256).hexdigest()


class Guard:
    """Pure ASGI middleware that implements the checks.

    Args:
        token: the secret, or a function that returns it; an empty one rejects all requests.
        hosts: exact Host headers in lower case, each with its scheme.
        origins: other web origins (scheme://host[:port]) that may use the API with a bearer token.
        open_paths: paths that need no token, but a known Host.
        body_bytes: limit of bodies outside `streamed_paths`; larger ones get a 413.
        body_seconds: longest wait for the next bytes of such a body; slower ones get a 408.
    """

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
        streamed_paths: re.Pattern[str] = STREAMED_PATHS,
    ) -> None:
        if "*" in origins or "null" in origins or "*" in hosts:
            raise ValueError("hosts and origins must be exact: * and null are not accepted")
        self.app = app
        self.token: Callable[[], str] = token if callable(token) else lambda: token
        self.hosts = dict(hosts)
        self.origins = frozenset(origin.lower().rstrip("/") for origin in origins)
        self.open_paths = frozenset(open_paths)
        self.body_bytes = body_bytes
        self.body_seconds = body_seconds
        self.streamed_paths = streamed_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        query_token = pop_token(scope)
        headers = Headers(scope=scope)
        try:
            response = self.check(scope, headers, query_token)
        except Problem as problem:
            page = login_page(scope["path"], headers) if problem.status_code == 401 and is_read(scope) else None
            response = page or rejection(scope, problem)
        if scope["type"] == "websocket":
            if response is None:
                await self.app(scope, receive, self.send_while_valid(send))
            else:
                await send({"type": "websocket.close", "code": 1008, "reason": ""})  # before accept: a 403
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.add_headers(MutableHeaders(scope=message), headers)
            await send(message)

        if response is not None:
            await response(scope, receive, send_with_headers)
        elif self.streamed_paths.fullmatch(scope["path"]):
            await self.app(scope, receive, send_with_headers)
        else:
            await self.serve_with_body_limit(scope, headers, receive, send_with_headers)

    def send_while_valid(self, send: Send) -> Send:
        """`send` for a WebSocket, which may be open for days: after a change of the token it closes the socket."""
        token = self.token()

        async def checked_send(message: Message) -> None:
            if self.token() != token:
                await send({"type": "websocket.close", "code": 1008, "reason": "another token is needed"})
                raise ConnectionError("the token has changed")  # the application treats it as a lost connection
            await send(message)

        return checked_send

    def check(self, scope: Scope, headers: Headers, query_token: str | None) -> Response | None:
        """Return None to admit the request, or a response to send instead. Raises Problem if it is rejected."""
        host = self.check_host(headers)
        scope["scheme"] = self.hosts[host].replace("http", "ws") if scope["type"] == "websocket" else self.hosts[host]
        origin = self.check_origin(headers, host)
        method = scope.get("method", "GET")  # a WebSocket starts as a GET
        if method == "OPTIONS" and origin in self.origins and "access-control-request-method" in headers:
            allow = {"access-control-allow-methods": "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"}
            return Response(
                status_code=204,
                headers={
                    **allow,
                    "access-control-allow-headers": CORS_REQUEST_HEADERS,
                    "access-control-max-age": "600",
                },
            )
        is_websocket = scope["type"] == "websocket"
        if scope["path"] in self.open_paths and not is_websocket and method in SAFE_METHODS:
            return None
        token = self.token()
        if query_token is not None and (is_websocket or method in ("GET", "HEAD")):
            if not equals_secret(query_token, token):
                raise Problem(401, "Wrong token", LOGIN_HINT, {"www-authenticate": 'Bearer realm="lumigraph"'})
            return None if is_websocket else redirect_with_cookie(scope, host, token)
        bearer = [value[7:].strip() for value in headers.getlist("authorization") if value[:7].lower() == "bearer "]
        if len(bearer) == 1 and equals_secret(bearer[0], token):
            return None
        name = cookie_name(host, self.hosts[host])
        if token and any(equals_secret(value, cookie_value(token)) for value in cookies(headers, name)):
            check_sender(scope, method, headers, origin)
            return None
        raise Problem(401, "Token needed", LOGIN_HINT, {"www-authenticate": 'Bearer realm="lumigraph"'})

    def check_host(self, headers: Headers) -> str:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or hosts[0].lower() not in self.hosts:
            raise Problem(403, "Host not allowed", "This server does not answer to that name.")
        return hosts[0].lower()

    def check_origin(self, headers: Headers, host: str) -> str | None:
        """The Origin, if there is one. Raises Problem 403 if it is neither the server's own nor configured, or null."""
        origins = headers.getlist("origin")
        if not origins:
            return None
        origin = origins[0].lower()
        if len(origins) > 1 or (origin != f"{self.hosts[host]}://{host}" and origin not in self.origins):
            raise Problem(403, "Origin not allowed", "Pages of that origin may not use this server.")
        return origin

    def add_headers(self, response: MutableHeaders, request: Headers) -> None:
        for name, value in SECURITY_HEADERS.items():
            response.setdefault(name, value)
        if self.origins:
            response.add_vary_header("Origin")
            origins = request.getlist("origin")
            if len(origins) == 1 and origins[0].lower() in self.origins:
                response["access-control-allow-origin"] = origins[0]
                response["access-control-expose-headers"] = CORS_RESPONSE_HEADERS

    async def serve_with_body_limit(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        """Call the application with limits for the size and the speed of the body: it is JSON, not a video."""
        too_large = Problem(
            413,
            "Body too large",
            f"At most {self.body_bytes:,} bytes are accepted here; send files to /uploads.",
        )
        has_started, received_bytes, has_more = False, 0, True

        async def limited_receive() -> Message:
            nonlocal received_bytes, has_more
            if not has_more:  # the wait for the end of the connection has no limit
                return await receive()
            try:
                async with asyncio.timeout(self.body_seconds):
                    message = await receive()
            except TimeoutError:
                raise Problem(408, "Body too slow", "The rest of the body did not arrive.") from None
            if message["type"] == "http.request":
                received_bytes += len(message.get("body", b""))
                has_more = message.get("more_body", False)
                if received_bytes > self.body_bytes:
                    raise too_large
            return message

        async def watched_send(message: Message) -> None:
            nonlocal has_started
            has_started = has_started or message["type"] == "http.response.start"
            await send(message)

        content_length = headers.get("content-length", "0")
        try:
            if content_length.isdecimal() and int(content_length[:20]) > self.body_bytes:
                raise too_large
            await self.app(scope, limited_receive, watched_send)
        except Problem as problem:
            if has_started:
                raise
            await rejection(scope, problem)(scope, receive, watched_send)


def is_read(scope: Scope) -> bool:
    return scope["type"] == "http" and scope["method"] in ("GET", "HEAD")


def rejection(scope: Scope, problem: Problem) -> Response:
    """The problem as a response. It also closes the connection if the client may still be sending an unread body."""
    response = problem_response(problem, scope["path"])
    return response if scope.get("method", "GET") in SAFE_METHODS else LingeringResponse(response)


def pop_token(scope: Scope) -> str | None:
    """Remove `token=` from the query in place, so that the server's log, which uses the same scope, never shows it."""
    query = scope.get("query_string", b"")
    if b"token" not in query and b"%" not in query:
        return None
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    tokens = [value for name, value in pairs if name == "token"]
    if not tokens:
        return None
    scope["query_string"] = urlencode([pair for pair in pairs if pair[0] != "token"]).encode("latin-1")
    return tokens[0] if len(tokens) == 1 else ""


def equals_secret(value: str, secret: str) -> bool:
    """Compare in constant time. An empty secret equals no value."""
    return hmac.compare_digest(value.encode("utf-8", "replace"), secret.encode()) and bool(secret)


def cookies(headers: Headers, name: str) -> list[str]:
    pairs = [part.partition("=") for line in headers.getlist("cookie") for part in line.split(";")]
    return [value.strip() for key, _, value in pairs if key.strip() == name]


def redirect_with_cookie(scope: Scope, host: str, token: str) -> Response:
    """Redirect to the same page without the token, which so stays out of the history and the address bar."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    path = "/" + raw.decode("latin-1").lstrip("/\\")  # '//evil.example/' would lead to another host
    query = scope["query_string"].decode("latin-1")
    response = RedirectResponse(path + (f"?{query}" if query else ""), 303)
    secure = scope["scheme"] == "https"
    name = cookie_name(host, scope["scheme"])
    response.set_cookie(name, cookie_value(token), path="/", secure=secure, httponly=True, samesite="strict")
    return response


def check_sender(scope: Scope, method: str, headers: Headers, origin: str | None) -> None:
    """Raises Problem 403 unless a request with a cookie comes from one of the server's pages or from a navigation.

    Browsers set Sec-Fetch-*, pages cannot. Browsers too old for these headers send Origin with unsafe requests.
    """
    if origin is not None:
        return  # check_origin has accepted it
    if scope["type"] == "websocket":
        raise Problem(403, "Origin needed", "A WebSocket with a cookie needs an Origin.")
    site = headers.get("sec-fetch-site")
    if method not in SAFE_METHODS:
        if site != "same-origin":
            raise Problem(
                403, "Origin needed", "A change that is authorized by a cookie needs the server's own Origin."
            )
    elif site in ("cross-site", "same-site") and headers.get("sec-fetch-mode") != "navigate":
        raise Problem(403, "Origin not allowed", "Pages of another origin may not read this server.")
