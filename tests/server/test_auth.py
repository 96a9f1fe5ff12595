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
from tests.server.running_server import free_socket, served

TOKEN = "a-secret-of-some-length-0123456789"
HOST = "localhost:7007"
HOSTED = {HOST: "http"}
OURS = "http://localhost:7007"
FRIEND = "https://friend.example"
COOKIE = {"cookie": f"lumigraph-7007={cookie_value(TOKEN)}"}
BEARER = {"authorization": f"Bearer {TOKEN}"}


def inside() -> FastAPI:
    app = FastAPI()
    problems.install(app)

    @app.api_route("/thing", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    def thing() -> str:
        return "in"

    @app.get("/healthz")
    def healthz() -> str:
        return "well"

    @app.get("/broken")
    def broken() -> str:
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
def guarded() -> TestClient:
    guard = Guard(inside(), TOKEN, allowed_hosts("127.0.0.1", 7007), origins=[FRIEND])
    return TestClient(guard, base_url=OURS, raise_server_exceptions=False, follow_redirects=False)


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
    FRIEND: True,
    "null": False,
    "http://evil.example": False,
    "http://localhost:7007.evil.example": False,
    "http://localhost:8080": False,
    "https://localhost:7007": False,
    "http://friend.example": False,
    "": False,
}
KEYS = {
    "none": ({}, False),
    "bearer": (BEARER, True),
    "wrong bearer": ({"authorization": "Bearer wrong"}, False),
    "basic": ({"authorization": f"Basic {TOKEN}"}, False),
    "cookie": (COOKIE, True),
    "token as cookie": ({"cookie": f"lumigraph-7007={TOKEN}"}, False),
    "cookie of another port": ({"cookie": f"lumigraph-7008={cookie_value(TOKEN)}"}, False),
    "cookie of another token": ({"cookie": f"lumigraph-7007={cookie_value('another')}"}, False),
}
SITES = (None, "same-origin", "same-site", "cross-site", "none")


def lets_in(method: str, host: str, origin: str | None, key: str, site: str | None) -> bool:
    """A second, independent implementation of the rule."""
    if not (HOSTS[host] and ORIGINS[origin] and KEYS[key][1]):
        return False
    if key == "bearer" or origin is not None:
        return True
    if method in ("GET", "HEAD"):
        return site not in ("same-site", "cross-site")
    return site == "same-origin"


async def yes(scope: Scope, receive: Receive, send: Send) -> None:
    """The smallest application; it admits every request."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
    else:
        await PlainTextResponse("in")(scope, receive, send)


async def ask(kind: str, method: str, query: str, headers: dict[str, str]) -> tuple[str, int, dict[str, str]]:
    """The first message of the guard's answer: its type, status and headers. Without a client, since there are many."""
    raw = [(key.encode(), value.encode()) for key, value in headers.items()]
    scope = {"type": kind, "method": method, "path": "/thing", "headers": raw, "query_string": query.encode()}
    patch_response: list[Message] = []

    async def send(message: Message) -> None:
        patch_response.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    guard = Guard(yes, TOKEN, allowed_hosts("127.0.0.1", 7007), origins=[FRIEND])
    await guard({**scope, "scheme": "ws" if kind == "websocket" else "http"}, receive, send)
    result = {key.decode(): value.decode() for key, value in patch_response[0].get("headers", [])}
    return patch_response[0]["type"], patch_response[0].get("status", 0), result


def asked(host: str, origin: str | None, key: str, site: str | None = None) -> dict[str, str]:
    headers = {"host": host, **(KEYS[key][0] if key in KEYS else {})}
    if origin is not None:
        headers["origin"] = f"http://{host.lower()}" if origin == "same" else origin
    return headers | ({} if site is None else {"sec-fetch-site": site})


def test_guard_http_matrix() -> None:
    async def all_of_them() -> set[bool]:
        history = set()
        methods = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
        for case in itertools.product(methods, HOSTS, ORIGINS, KEYS, SITES):
            method, host, origin, key, site = case
            _, status, headers = await ask("http", method, "", asked(host, origin, key, site))
            expected = lets_in(*case)
            assert status == 200 if expected else status in (401, 403), case
            assert ("access-control-allow-origin" in headers) == (origin == FRIEND), case
            assert headers.items() >= SECURITY_HEADERS.items(), case
            history.add(expected)
        return history

    assert asyncio.run(all_of_them()) == {True, False}


def test_guard_websocket_matrix() -> None:
    async def all_of_them() -> set[bool]:
        history = set()
        for host, origin, key in itertools.product(HOSTS, ORIGINS, [*KEYS, "query", "wrong query"]):
            query = {"query": f"token={TOKEN}", "wrong query": "token=wrong"}.get(key, "")
            kind, _, _ = await ask("websocket", "GET", query, asked(host, origin, key))
            is_known = key == "query" or (key in KEYS and KEYS[key][1])
            expected = HOSTS[host] and ORIGINS[origin] and is_known and not (key == "cookie" and origin is None)
            assert kind == ("websocket.accept" if expected else "websocket.close"), (host, origin, key)
            history.add(expected)
        return history

    assert asyncio.run(all_of_them()) == {True, False}


def test_guard_only_healthz_is_open(guarded: TestClient) -> None:
    """FastAPI's own pages included."""
    for path in ("/", "/thing", "/docs", "/openapi.json", "/redoc", "/nowhere", "/healthz/", "/healthz/x", "//healthz"):
        assert guarded.get(path).status_code == 401, path
    assert guarded.get("/healthz").text == '"well"'
    assert guarded.get("/healthz", headers={"host": "evil.example"}).status_code == 403
    assert guarded.get("/healthz", headers={"origin": "null"}).status_code == 403
    assert guarded.post("/healthz").status_code == 401


def test_guard_token_link_sets_cookie(guarded: TestClient) -> None:
    answer = guarded.get(f"/thing?a=1&token={TOKEN}&b=%26")
    assert (answer.status_code, answer.headers["location"]) == (303, "/thing?a=1&b=%26")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("lumigraph-7007=") and TOKEN not in cookie
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}
    assert "Secure" not in cookie
    assert guarded.get("/thing").status_code == 200  # the client keeps cookies
    assert guarded.get("/thing?token=wrong").status_code == 401
    assert guarded.get(f"/thing?token={TOKEN}&token=wrong").status_code == 401
    guarded.cookies.clear()
    assert guarded.post(f"/thing?token={TOKEN}").status_code == 401


def test_guard_cookie_is_secure_behind_tls_proxy() -> None:
    guard = Guard(inside(), TOKEN, allowed_hosts("127.0.0.1", 7007, ["https://studio.example"]))
    with TestClient(guard, base_url="http://studio.example", follow_redirects=False) as client:
        answer = client.get(f"/thing?token={TOKEN}")
        assert "; Secure" in answer.headers["set-cookie"]
        assert answer.headers["set-cookie"].startswith("lumigraph-443=")
        client.cookies.clear()  # the proxy would hand it on; this client keeps it from a plain connection
        cookie = {"cookie": answer.headers["set-cookie"].partition(";")[0]}
        assert client.post("/thing", headers={"origin": "https://studio.example", **cookie}).status_code == 200
        assert client.post("/thing", headers={"origin": "http://studio.example", **cookie}).status_code == 403


@pytest.mark.parametrize("path", ["//evil.example/", "/\\evil.example/", "///evil.example/"])
def test_guard_redirect_stays_on_host(guarded: TestClient, path: str) -> None:
    location = guarded.get(f"{OURS}{path}?token={TOKEN}").headers["location"]
    assert location.startswith("/") and location[1] not in "/\\"


def test_guard_preflight_needs_configured_origin(guarded: TestClient) -> None:
    asked = {"access-control-request-method": "PATCH", "access-control-request-headers": "upload-offset"}
    answer = guarded.options("/thing", headers={"origin": FRIEND, **asked})
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == FRIEND
    assert "PATCH" in answer.headers["access-control-allow-methods"]
    assert "Upload-Offset" in answer.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in answer.headers
    for origin in ("http://evil.example", "null", OURS):
        error_info = guarded.options("/thing", headers={"origin": origin, **asked})
        assert error_info.status_code in (401, 403)
        assert "access-control-allow-origin" not in error_info.headers


@pytest.mark.parametrize("bad", [{"origins": ["*"]}, {"origins": ["null"]}, {"hosts": {"*": "http"}}])
def test_guard_rejects_wildcards(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="exact"):
        Guard(inside(), TOKEN, **{"hosts": HOSTED, **bad})


def test_guard_empty_token_rejects_all() -> None:
    client = TestClient(Guard(inside(), "", HOSTED), base_url=OURS)
    for headers in ({}, {"authorization": "Bearer "}, {"cookie": f"lumigraph-7007={cookie_value('')}"}):
        assert client.get("/thing", headers=headers).status_code == 401
    assert client.get("/thing?token=").status_code == 401


def test_guard_rejects_duplicate_headers(guarded: TestClient) -> None:
    for twice in ([("host", HOST), ("host", "evil.example")], [("origin", OURS), ("origin", OURS)]):
        assert guarded.get("/thing", headers=[*BEARER.items(), *twice]).status_code == 403
    assert guarded.get("/thing", headers=[*BEARER.items(), *BEARER.items()]).status_code == 401


def test_guard_adds_headers_to_errors(guarded: TestClient) -> None:
    answer = guarded.get("/broken", headers=BEARER)
    assert answer.status_code == 500
    assert "inside" not in answer.text
    assert SECURITY_HEADERS.items() <= dict(answer.headers).items()


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


def test_guard_limits_body_size(guarded: TestClient) -> None:
    assert guarded.post("/json", json={"a": "b"}, headers=BEARER).json() == 1
    declared = guarded.post("/json", content=b"x" * 1_000_001, headers=BEARER)
    counted_roots = guarded.post("/json", content=iter([b"x" * 600_000] * 2), headers=BEARER)
    for answer in (declared, counted_roots):
        assert answer.status_code == 413
        assert answer.headers["content-type"] == "application/problem+json"
    streamed = guarded.post("/projects/p/uploads", content=b"x" * 1_000_001, headers=BEARER)
    assert streamed.json() == 1_000_001


def test_guard_limits_body_time() -> None:
    listener = free_socket()
    port = listener.getsockname()[1]
    with served(Guard(inside(), TOKEN, allowed_hosts("127.0.0.1", port), body_seconds=0.2), listener) as url:

        def slow() -> Iterator[bytes]:
            yield b"{"
            time.sleep(1)
            yield b"}"

        answer = httpx.post(f"{url}/json", content=slow(), headers=BEARER)
        assert answer.status_code == 408


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
        served(Guard(inside(), TOKEN, allowed_hosts("127.0.0.1", port), body_seconds=0.2), listener),
        socket.create_connection(("127.0.0.1", port), timeout=1.5) as connection,
    ):
        lines = f"POST {path} HTTP/1.1\r\nHost: localhost:{port}\r\n{key}Content-Length: 99999999\r\n\r\nxx"
        connection.sendall(lines.encode())
        answer = connection.recv(4096).split(b"\r\n\r\n")[0]
        assert answer.split()[1] == status
        assert b"connection: close" in answer


# -- a real server ---------------------------------------------------------------------------------------------------


def test_guard_keeps_token_out_of_log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    listener = free_socket()
    port = listener.getsockname()[1]
    with served(Guard(inside(), TOKEN, allowed_hosts("127.0.0.1", port)), listener) as url:
        for name in ("", "uvicorn", "uvicorn.access", "uvicorn.error"):  # other servers of this process set these too
            caplog.set_level(logging.INFO, name or None)
            monkeypatch.setattr(logging.getLogger(name), "disabled", False)
            monkeypatch.setattr(logging.getLogger(name), "propagate", True)
        for query in (f"token={TOKEN}", f"a=1&%74oken={TOKEN}", "token=wrong-token-of-someone"):
            httpx.get(f"{url}/thing?{query}")
            httpx.post(f"{url}/thing?{query}")
        live = url.replace("http", "ws") + "/live"
        with connect(f"{live}?token={TOKEN}") as opened_paths:
            assert opened_paths.recv() == "in"
        with pytest.raises(InvalidStatus) as error_info:
            connect(f"{live}?token=wrong-token-of-someone")
        assert error_info.value.response.status_code == 403
    written = "\n".join(item.getMessage() for item in caplog.records if item.name.startswith("uvicorn"))
    assert "GET /thing" in written and "/live" in written  # the log was really on
    assert TOKEN not in written and "wrong-token-of-someone" not in written


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


# -- the file --------------------------------------------------------------------------------------------------------


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
    client = TestClient(Guard(inside(), token_file(path), HOSTED), base_url=OURS)
    bearer = {"authorization": f"Bearer {old}"}
    cookie = {"cookie": f"lumigraph-7007={cookie_value(old)}"}
    assert client.get("/thing", headers=bearer).status_code == client.get("/thing", headers=cookie).status_code == 200
    new = rotate_token(path)
    assert new != old
    assert client.get("/thing", headers=bearer).status_code == client.get("/thing", headers=cookie).status_code == 401
    assert client.get("/thing", headers={"authorization": f"Bearer {new}"}).status_code == 200
    path.unlink()
    assert client.get("/thing", headers={"authorization": f"Bearer {new}"}).status_code == 401
