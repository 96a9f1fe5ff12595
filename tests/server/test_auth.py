"""Access control: every Host x Origin x token x method, for HTTP and WebSockets."""

import asyncio
import itertools
import logging
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request, WebSocket
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from lumigraph.server import problems
from lumigraph.server.auth.access import SECURITY_HEADERS, Guard, allowed_hosts, cookie_name, cookie_value, pop_token
from lumigraph.server.auth.tokens import read_or_make_token, rotate_token, token_file
from tests.server.running_server import free_socket, serve

TOKEN = "a-secret-of-some-length-0123456789"
HOST = "localhost:7007"
OWN_HOSTS = {HOST: "http"}
OWN_ORIGIN = "http://localhost:7007"
ALLOWED_ORIGIN = "https://friend.example"
COOKIE = {"cookie": f"lumigraph-7007={cookie_value(TOKEN)}"}
BEARER = {"authorization": f"Bearer {TOKEN}"}


def guarded_app() -> FastAPI:
    app = FastAPI()
    problems.install(app)

    @app.api_route("/page", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    def page() -> str:
        return "in"

    @app.get("/healthz")
    def healthz() -> str:
        return "well"

    @app.get("/broken")
    def failing_route() -> str:
        raise RuntimeError("a secret of the inside")

    @app.post("/json")
    def json(body: dict[str, str]) -> int:
        return len(body)

    @app.post("/projects/{project}/uploads")
    async def stream(request: Request) -> int:
        return sum([len(piece) async for piece in request.stream()])

    @app.websocket("/live")
    async def live(connection: WebSocket) -> None:
        await connection.accept()
        await connection.send_text("in")
        await connection.close()

    return app


@pytest.fixture
def guarded_client() -> TestClient:
    guard = Guard(guarded_app(), TOKEN, allowed_hosts("127.0.0.1", 7007), origins=[ALLOWED_ORIGIN])
    return TestClient(guard, base_url=OWN_ORIGIN, raise_server_exceptions=False, follow_redirects=False)


HOSTS = {
    "localhost:7007": True,
    "127.0.0.1:7007": True,
    "[::1]:7007": True,
    "LOCALHOST:7007": True,
    "localhost": False,
    "localhost:7008": False,
    "evil.example:7007": False,
    "localhost.evil.example:7007": False,
    "localhost:7007.evil.example": False,
    "localhost.:7007": False,
    "192.168.0.1:7007": False,
    "0.0.0.0:7007": False,
    "": False,
}
ORIGINS = {
    None: True,
    "same": True,
    ALLOWED_ORIGIN: True,
    "null": False,
    "http://evil.example": False,
    "http://localhost:7007.evil.example": False,
    "http://localhost:8080": False,
    "https://localhost:7007": False,
    "http://friend.example": False,
    "": False,
}
CREDENTIALS = {
    "none": ({}, False),
    "bearer": (BEARER, True),
    "wrong bearer": ({"authorization": "Bearer wrong"}, False),
    "basic": ({"authorization": f"Basic {TOKEN}"}, False),
    "cookie": (COOKIE, True),
    "token as cookie": ({"cookie": f"lumigraph-7007={TOKEN}"}, False),
    "cookie of another port": ({"cookie": f"lumigraph-7008={cookie_value(TOKEN)}"}, False),
    "cookie of another token": ({"cookie": f"lumigraph-7007={cookie_value('another')}"}, False),
}
FETCH_SITES = (None, "same-origin", "same-site", "cross-site", "none")


def is_admitted(method: str, host: str, origin: str | None, key: str, site: str | None) -> bool:
    """Whether the guard must admit a request: a second, independent implementation of the rule."""
    if not (HOSTS[host] and ORIGINS[origin] and CREDENTIALS[key][1]):
        return False
    if key == "bearer" or origin is not None:
        return True
    if method in ("GET", "HEAD"):
        return site not in ("same-site", "cross-site")
    return site == "same-origin"


async def admit_all(scope: Scope, receive: Receive, send: Send) -> None:
    """The smallest ASGI application: it accepts every request."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
    else:
        await PlainTextResponse("in")(scope, receive, send)


async def first_message(kind: str, method: str, query: str, headers: dict[str, str]) -> tuple[str, int, dict[str, str]]:
    """Return type, status and headers of the guard's first message. A test client is too slow for all cases."""
    raw = [(key.encode(), value.encode()) for key, value in headers.items()]
    scope = {"type": kind, "method": method, "path": "/page", "headers": raw, "query_string": query.encode()}
    messages: list[Message] = []

    async def send(message: Message) -> None:
        messages.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    guard = Guard(admit_all, TOKEN, allowed_hosts("127.0.0.1", 7007), origins=[ALLOWED_ORIGIN])
    await guard({**scope, "scheme": "ws" if kind == "websocket" else "http"}, receive, send)
    response_headers = {key.decode(): value.decode() for key, value in messages[0].get("headers", [])}
    return messages[0]["type"], messages[0].get("status", 0), response_headers


def request_headers(host: str, origin: str | None, key: str, site: str | None = None) -> dict[str, str]:
    headers = {"host": host, **(CREDENTIALS[key][0] if key in CREDENTIALS else {})}
    if origin is not None:
        headers["origin"] = f"http://{host.lower()}" if origin == "same" else origin
    return headers | ({} if site is None else {"sec-fetch-site": site})


def test_guard_http_matrix() -> None:
    async def check_all() -> set[bool]:
        outcomes = set()
        methods = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
        for case in itertools.product(methods, HOSTS, ORIGINS, CREDENTIALS, FETCH_SITES):
            method, host, origin, key, site = case
            _, status, headers = await first_message("http", method, "", request_headers(host, origin, key, site))
            expected = is_admitted(*case)
            assert status == 200 if expected else status in (401, 403), case
            assert ("access-control-allow-origin" in headers) == (origin == ALLOWED_ORIGIN), case
            assert headers.items() >= SECURITY_HEADERS.items(), case
            outcomes.add(expected)
        return outcomes

    assert asyncio.run(check_all()) == {True, False}


def test_guard_websocket_matrix() -> None:
    async def check_all() -> set[bool]:
        outcomes = set()
        for host, origin, key in itertools.product(HOSTS, ORIGINS, [*CREDENTIALS, "query", "wrong query"]):
            query = {"query": f"token={TOKEN}", "wrong query": "token=wrong"}.get(key, "")
            kind, _, _ = await first_message("websocket", "GET", query, request_headers(host, origin, key))
            is_known = key == "query" or (key in CREDENTIALS and CREDENTIALS[key][1])
            expected = HOSTS[host] and ORIGINS[origin] and is_known and not (key == "cookie" and origin is None)
            assert kind == ("websocket.accept" if expected else "websocket.close"), (host, origin, key)
            outcomes.add(expected)
        return outcomes

    assert asyncio.run(check_all()) == {True, False}


def test_guard_only_healthz_is_open(guarded_client: TestClient) -> None:
    """The guard also covers FastAPI's own pages."""
    for path in ("/", "/page", "/docs", "/openapi.json", "/redoc", "/nowhere", "/healthz/", "/healthz/x", "//healthz"):
        assert guarded_client.get(path).status_code == 401, path
    assert guarded_client.get("/healthz").text == '"well"'
    assert guarded_client.get("/healthz", headers={"host": "evil.example"}).status_code == 403
    assert guarded_client.get("/healthz", headers={"origin": "null"}).status_code == 403
    assert guarded_client.post("/healthz").status_code == 401


def test_guard_token_link_sets_cookie(guarded_client: TestClient) -> None:
    response = guarded_client.get(f"/page?a=1&token={TOKEN}&b=%26")
    assert (response.status_code, response.headers["location"]) == (303, "/page?a=1&b=%26")
    cookie = response.headers["set-cookie"]
    assert cookie.startswith("lumigraph-7007=") and TOKEN not in cookie
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}
    assert "Secure" not in cookie
    assert guarded_client.get("/page").status_code == 200  # the client keeps cookies
    assert guarded_client.get("/page?token=wrong").status_code == 401
    assert guarded_client.get(f"/page?token={TOKEN}&token=wrong").status_code == 401
    guarded_client.cookies.clear()
    assert guarded_client.post(f"/page?token={TOKEN}").status_code == 401


def test_guard_cookie_is_secure_behind_tls_proxy() -> None:
    guard = Guard(guarded_app(), TOKEN, allowed_hosts("127.0.0.1", 7007, ["https://studio.example"]))
    with TestClient(guard, base_url="http://studio.example", follow_redirects=False) as client:
        response = client.get(f"/page?token={TOKEN}")
        assert "; Secure" in response.headers["set-cookie"]
        assert response.headers["set-cookie"].startswith("lumigraph-443=")
        client.cookies.clear()  # a proxy forwards secure cookies; this client withholds them from http
        cookie = {"cookie": response.headers["set-cookie"].partition(";")[0]}
        assert client.post("/page", headers={"origin": "https://studio.example", **cookie}).status_code == 200
        assert client.post("/page", headers={"origin": "http://studio.example", **cookie}).status_code == 403


@pytest.mark.parametrize("path", ["//evil.example/", "/\\evil.example/", "///evil.example/"])
def test_guard_redirect_stays_on_host(guarded_client: TestClient, path: str) -> None:
    location = guarded_client.get(f"{OWN_ORIGIN}{path}?token={TOKEN}").headers["location"]
    assert location.startswith("/") and location[1] not in "/\\"


def test_guard_preflight_needs_configured_origin(guarded_client: TestClient) -> None:
    preflight = {"access-control-request-method": "PATCH", "access-control-request-headers": "upload-offset"}
    response = guarded_client.options("/page", headers={"origin": ALLOWED_ORIGIN, **preflight})
    assert response.status_code == 204
    assert response.headers["access-control-allow-origin"] == ALLOWED_ORIGIN
    assert "PATCH" in response.headers["access-control-allow-methods"]
    assert "Upload-Offset" in response.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in response.headers
    for origin in ("http://evil.example", "null", OWN_ORIGIN):
        rejection = guarded_client.options("/page", headers={"origin": origin, **preflight})
        assert rejection.status_code in (401, 403)
        assert "access-control-allow-origin" not in rejection.headers


@pytest.mark.parametrize("bad", [{"origins": ["*"]}, {"origins": ["null"]}, {"hosts": {"*": "http"}}])
def test_guard_rejects_wildcards(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="exact"):
        Guard(guarded_app(), TOKEN, **{"hosts": OWN_HOSTS, **bad})


def test_guard_empty_token_rejects_all() -> None:
    client = TestClient(Guard(guarded_app(), "", OWN_HOSTS), base_url=OWN_ORIGIN)
    for headers in ({}, {"authorization": "Bearer "}, {"cookie": f"lumigraph-7007={cookie_value('')}"}):
        assert client.get("/page", headers=headers).status_code == 401
    assert client.get("/page?token=").status_code == 401


def test_guard_rejects_duplicate_headers(guarded_client: TestClient) -> None:
    for twice in ([("host", HOST), ("host", "evil.example")], [("origin", OWN_ORIGIN), ("origin", OWN_ORIGIN)]):
        assert guarded_client.get("/page", headers=[*BEARER.items(), *twice]).status_code == 403
    assert guarded_client.get("/page", headers=[*BEARER.items(), *BEARER.items()]).status_code == 401


def test_guard_adds_headers_to_errors(guarded_client: TestClient) -> None:
    response = guarded_client.get("/broken", headers=BEARER)
    assert response.status_code == 500
    assert "inside" not in response.text
    assert SECURITY_HEADERS.items() <= dict(response.headers).items()


@pytest.mark.parametrize(
    ("host", "port", "expected"),
    [
        ("127.0.0.1", 7007, {"localhost:7007", "127.0.0.1:7007", "[::1]:7007"}),
        ("0.0.0.0", 7007, {"localhost:7007", "127.0.0.1:7007", "[::1]:7007"}),
        ("fe80::1", 7007, {"localhost:7007", "127.0.0.1:7007", "[::1]:7007", "[fe80::1]:7007"}),
        ("Box", 80, {"localhost:80", "127.0.0.1:80", "[::1]:80", "box:80", "localhost", "127.0.0.1", "[::1]", "box"}),
    ],
)
def test_allowed_hosts(host: str, port: int, expected: set[str]) -> None:
    assert allowed_hosts(host, port) == dict.fromkeys(expected, "http")


def test_allowed_hosts_proxy_urls() -> None:
    result = allowed_hosts("127.0.0.1", 7007, ["https://Studio.example/", "http://box:8080", "https://s.example:443"])
    assert {"studio.example": "https", "box:8080": "http", "s.example": "https"}.items() <= result.items()


@pytest.mark.parametrize("url", ["studio.example", "ftp://studio.example", "https://", "https://a/b", "https://u@a"])
def test_allowed_hosts_rejects_invalid_urls(url: str) -> None:
    with pytest.raises(ValueError, match="not the address of a server"):
        allowed_hosts("127.0.0.1", 7007, [url])


def test_cookie_name_contains_port() -> None:
    names = [cookie_name("localhost:7007", "http"), cookie_name("[::1]:7008", "http"), cookie_name("box", "https")]
    assert names == ["lumigraph-7007", "lumigraph-7008", "lumigraph-443"]


# -- bodies ----------------------------------------------------------------------------------------------------------


def test_guard_limits_body_size(guarded_client: TestClient) -> None:
    assert guarded_client.post("/json", json={"a": "b"}, headers=BEARER).json() == 1
    oversized = guarded_client.post("/json", content=b"x" * 1_000_001, headers=BEARER)
    oversized_chunks = guarded_client.post("/json", content=iter([b"x" * 600_000] * 2), headers=BEARER)
    for response in (oversized, oversized_chunks):
        assert response.status_code == 413
        assert response.headers["content-type"] == "application/problem+json"
    upload = guarded_client.post("/projects/p/uploads", content=b"x" * 1_000_001, headers=BEARER)
    assert upload.json() == 1_000_001


def test_guard_limits_body_time() -> None:
    listener = free_socket()
    port = listener.getsockname()[1]
    with serve(Guard(guarded_app(), TOKEN, allowed_hosts("127.0.0.1", port), body_seconds=0.2), listener) as url:

        def slow() -> Iterator[bytes]:
            yield b"{"
            time.sleep(1)
            yield b"}"

        response = httpx.post(f"{url}/json", content=slow(), headers=BEARER)
        assert response.status_code == 408


@pytest.mark.parametrize(
    ("path", "key", "status"),
    [
        ("/json", "", b"401"),
        ("/json", f"Authorization: Bearer {TOKEN}\r\n", b"413"),
        ("/projects/p/uploads", "", b"401"),
    ],
)
def test_guard_rejection_does_not_wait_for_body(path: str, key: str, status: bytes) -> None:
    listener = free_socket()
    port = listener.getsockname()[1]
    with (
        serve(Guard(guarded_app(), TOKEN, allowed_hosts("127.0.0.1", port), body_seconds=0.2), listener),
        socket.create_connection(("127.0.0.1", port), timeout=1.5) as connection,
    ):
        lines = f"POST {path} HTTP/1.1\r\nHost: localhost:{port}\r\n{key}Content-Length: 99999999\r\n\r\nxx"
        connection.sendall(lines.encode())
        response = connection.recv(4096).split(b"\r\n\r\n")[0]
        assert response.split()[1] == status
        assert b"connection: close" in response


# -- a real server ---------------------------------------------------------------------------------------------------


def test_guard_keeps_token_out_of_log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    listener = free_socket()
    port = listener.getsockname()[1]
    with serve(Guard(guarded_app(), TOKEN, allowed_hosts("127.0.0.1", port)), listener) as url:
        for name in ("", "uvicorn", "uvicorn.access", "uvicorn.error"):  # earlier servers changed these loggers
            caplog.set_level(logging.INFO, name or None)
            monkeypatch.setattr(logging.getLogger(name), "disabled", False)
            monkeypatch.setattr(logging.getLogger(name), "propagate", True)
        for query in (f"token={TOKEN}", f"a=1&%74oken={TOKEN}", "token=wrong-token-of-someone"):
            httpx.get(f"{url}/page?{query}")
            httpx.post(f"{url}/page?{query}")
        live = url.replace("http", "ws") + "/live"
        with connect(f"{live}?token={TOKEN}") as websocket:
            assert websocket.recv() == "in"
        with pytest.raises(InvalidStatus) as error_info:
            connect(f"{live}?token=wrong-token-of-someone")
        assert error_info.value.response.status_code == 403
    log_text = "\n".join(item.getMessage() for item in caplog.records if item.name.startswith("uvicorn"))
    assert "GET /page" in log_text and "/live" in log_text  # the log was enabled
    assert TOKEN not in log_text and "wrong-token-of-someone" not in log_text


@pytest.mark.parametrize(
    ("query", "left", "token"),
    [
        (b"", b"", None),
        (b"a=%2Fb&c", b"a=%2Fb&c", None),
        (b"token=x", b"", "x"),
        (b"a=%C3%A9&token=x&b=", b"a=%C3%A9&b=", "x"),
        (b"tok%65n=x", b"", "x"),
        (b"token=x&token=y", b"", ""),
    ],
)
def test_pop_token(query: bytes, left: bytes, token: str | None) -> None:
    scope = {"query_string": query}
    assert pop_token(scope) == token
    assert scope["query_string"] == left


# -- token file ------------------------------------------------------------------------------------------------------


def test_token_file_creation(tmp_path: Path) -> None:
    path = tmp_path / "new" / "token"
    token = read_or_make_token(path)
    assert len(token) >= 43
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_or_make_token(path) == token
    path.chmod(0o644)
    assert read_or_make_token(path) == token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [item.name for item in path.parent.iterdir()] == ["token"]


def test_token_file_rejects_invalid_content(tmp_path: Path) -> None:
    path = tmp_path / "token"
    for bad in ("", "short", "two lines of\nsomething long enough", "x" * 600):
        path.write_text(bad)
        with pytest.raises(ValueError, match="no token"):
            read_or_make_token(path)
        assert token_file(path)() == ""
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        read_or_make_token(path)
    assert not (tmp_path / "elsewhere").exists()


def test_rotate_token_takes_effect_at_once(tmp_path: Path) -> None:
    path = tmp_path / "token"
    old = read_or_make_token(path)
    client = TestClient(Guard(guarded_app(), token_file(path), OWN_HOSTS), base_url=OWN_ORIGIN)
    bearer = {"authorization": f"Bearer {old}"}
    cookie = {"cookie": f"lumigraph-7007={cookie_value(old)}"}
    assert client.get("/page", headers=bearer).status_code == client.get("/page", headers=cookie).status_code == 200
    new = rotate_token(path)
    assert new != old
    assert client.get("/page", headers=bearer).status_code == client.get("/page", headers=cookie).status_code == 401
    assert client.get("/page", headers={"authorization": f"Bearer {new}"}).status_code == 200
    path.unlink()
    assert client.get("/page", headers={"authorization": f"Bearer {new}"}).status_code == 401
