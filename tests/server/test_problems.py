"""Every error is a problem response without internals of the server."""

import errno
import sqlite3
from collections.abc import Callable

import pytest
from fastapi import FastAPI, WebSocket
from pydantic import BaseModel
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from lumigraph.server import problems
from lumigraph.server.problems import MEDIA_TYPE, Problem, error_responses


class Settings(BaseModel):
    steps: int


class Body(BaseModel):
    settings: Settings
    views: list[int] = []


@pytest.fixture
def client() -> TestClient:
    app = FastAPI()
    problems.install(app)

    @app.post("/jobs/{number}", responses=error_responses(404))
    def job(number: int, body: Body) -> int:
        return number

    @app.websocket("/live")
    async def live(socket: WebSocket, early: bool = False) -> None:
        if not early:
            await socket.accept()
        raise Problem(404, "No such job", "There is none.")

    def failing(path: str, error: Callable[[], Exception]) -> None:
        @app.get(path)
        def fail() -> None:
            raise error()

    failing("/taken", lambda: Problem(409, "Name taken", "It is.", {"retry-after": "3"}, rival="b.txt"))
    failing("/full", lambda: OSError(errno.ENOSPC, "No space left on device", "/secret/path"))
    failing("/quota", lambda: OSError(errno.EDQUOT, "quota"))
    failing("/io", lambda: OSError(errno.EIO, "input/output error", "/secret/path"))
    failing("/wrong", lambda: KeyError("secret"))

    @app.get("/database")
    def database() -> None:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = problems.SQLITE_FULL
        raise RuntimeError("secret") from error

    return TestClient(app, raise_server_exceptions=False)


def test_problem_response(client: TestClient) -> None:
    response = client.get("/taken?token=secret")
    assert response.headers["content-type"] == MEDIA_TYPE
    assert response.headers["retry-after"] == "3"
    assert response.json() == {
        "type": "urn:lumigraph:problem:name-taken",
        "title": "Name taken",
        "status": 409,
        "detail": "It is.",
        "instance": "/taken",
        "rival": "b.txt",
    }


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("PUT", "/jobs/1", 405),
        ("GET", "/full", 507),
        ("GET", "/quota", 507),
        ("GET", "/database", 507),
        ("GET", "/io", 500),
        ("GET", "/wrong", 500),
    ],
)
def test_problem_for_other_errors(client: TestClient, method: str, path: str, status: int) -> None:
    response = client.request(method, path)
    assert response.status_code == response.json()["status"] == status
    assert response.headers["content-type"] == MEDIA_TYPE
    assert "secret" not in response.text
    assert ("allow" in response.headers) == (status == 405)


@pytest.mark.parametrize(
    ("path", "body", "where", "field"),
    [
        ("/jobs/1", {"settings": {"steps": "many-secret"}}, "body", "$.settings.steps"),
        ("/jobs/1", {"settings": {"steps": 1}, "views": [1, "secret"]}, "body", "$.views[1]"),
        ("/jobs/1", {}, "body", "$.settings"),
        ("/jobs/secret", {"settings": {"steps": 1}}, "path", "$.number"),
    ],
)
def test_problem_names_invalid_field(client: TestClient, path: str, body: object, where: str, field: str) -> None:
    response = client.post(path, json=body)
    assert response.status_code == 422
    (error,) = response.json()["errors"]
    assert (error["where"], error["path"]) == (where, field)
    assert field in response.json()["detail"]
    assert "secret" not in response.text.replace(path, "")


def test_problem_closes_websocket(client: TestClient) -> None:
    with client.websocket_connect("/live") as socket, pytest.raises(WebSocketDisconnect) as close_info:
        socket.receive_text()
    assert (close_info.value.code, close_info.value.reason) == (4404, "No such job")
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/live?early=true"):
        pass


def test_problem_for_broken_json(client: TestClient) -> None:
    response = client.post("/jobs/1", content=b"{", headers={"content-type": "application/json"})
    assert (response.status_code, response.headers["content-type"]) == (422, MEDIA_TYPE)


def test_problem_schema_in_openapi(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    assert {"ProblemDetails", "FieldError"} <= set(schemas)
    responses = document["paths"]["/jobs/{number}"]["post"]["responses"]
    assert set(responses) == {"200", "400", "401", "403", "404", "408", "413", "422", "500"}
    assert responses["422"]["content"] == {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}}
