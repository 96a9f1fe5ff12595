"""Downloads by RFC 9110: validators, single ranges, and rejected requests."""

import os
from pathlib import Path

import pytest
from fastapi import FastAPI, Request
from starlette.responses import Response
from starlette.testclient import TestClient

from lumigraph.server import problems
from lumigraph.server.files.downloads import INLINE, disposition, send_file

BYTES = bytes(range(256)) * 10  # 2560


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "video.mp4").write_bytes(BYTES)
    (tmp_path / "empty.bin").write_bytes(b"")
    (tmp_path / "page.html").write_text("<script>alert(1)</script>")
    return tmp_path


@pytest.fixture
def download_client(folder: Path) -> TestClient:
    app = FastAPI()
    problems.install(app)

    @app.api_route("/{name:path}", methods=["GET", "HEAD"])
    def get(request: Request, name: str, inline: bool = False, sha256: str | None = None) -> Response:
        return send_file(request, folder, name, inline=inline, sha256=sha256)

    return TestClient(app, raise_server_exceptions=False)


def test_send_file_whole(download_client: TestClient) -> None:
    response = download_client.get("/a/video.mp4")
    assert (response.status_code, response.content) == (200, BYTES)
    headers = response.headers
    assert headers["content-length"] == "2560"
    assert headers["accept-ranges"] == "bytes"
    assert headers["etag"].startswith('"') and not headers["etag"].startswith("W/")
    assert headers["content-type"] == "application/octet-stream"
    assert headers["content-disposition"] == 'attachment; filename="video.mp4"'
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"] == "sandbox"
    head = download_client.head("/a/video.mp4")
    assert (head.status_code, head.content) == (200, b"")
    assert dict(head.headers) == dict(headers)


@pytest.mark.parametrize(
    ("byte_range", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=0-", 0, 2559),
        ("bytes=10-19", 10, 19),
        ("bytes=2559-", 2559, 2559),
        ("bytes=2000-9999", 2000, 2559),
        ("bytes=2000-999999999999999999", 2000, 2559),
        ("bytes=-1", 2559, 2559),
        ("bytes=-9999", 0, 2559),
        ("BYTES=1-2", 1, 2),
        ("bytes= 1-2", 1, 2),
    ],
)
def test_send_file_range(download_client: TestClient, byte_range: str, first: int, last: int) -> None:
    response = download_client.get("/a/video.mp4", headers={"range": byte_range})
    assert response.status_code == 206
    assert response.content == BYTES[first : last + 1]
    assert response.headers["content-range"] == f"bytes {first}-{last}/2560"
    assert response.headers["content-length"] == str(last + 1 - first)


@pytest.mark.parametrize("byte_range", ["bytes=2560-", "bytes=9999-10000", "bytes=-0"])
def test_send_file_range_beyond_end(download_client: TestClient, byte_range: str) -> None:
    response = download_client.get("/a/video.mp4", headers={"range": byte_range})
    assert response.status_code == 416
    assert response.headers["content-range"] == "bytes */2560"


@pytest.mark.parametrize(
    "byte_range",
    [
        "bytes=0-1,5-6",
        "bytes=" + ",".join(f"{i}-{i}" for i in range(10_000)),
        "bytes=" + "0-," * 1_000,
        "bytes=5-4",
        "bytes=-",
        "bytes=a-b",
        "bytes=١-٢",
        "bytes=1-2-3",
        "bytes=+1-2",
        "bytes=0x1-2",
        "lines=1-2",
        "1-2",
        "",
        "bytes=" + "9" * 200 + "-",
    ],
)
def test_send_file_other_ranges_get_whole_file(download_client: TestClient, byte_range: str) -> None:
    response = download_client.get("/a/video.mp4", headers={"range": byte_range.encode()})
    assert (response.status_code, response.content) == (200, BYTES)


def test_send_file_ignores_two_range_headers(download_client: TestClient) -> None:
    assert (
        download_client.get("/a/video.mp4", headers=[("range", "bytes=0-1"), ("range", "bytes=2-3")]).status_code == 200
    )


def test_send_file_head_ignores_range(download_client: TestClient) -> None:
    assert download_client.head("/a/video.mp4", headers={"range": "bytes=0-1"}).status_code == 200


def test_send_file_empty(download_client: TestClient) -> None:
    assert download_client.get("/empty.bin").content == b""
    assert download_client.get("/empty.bin", headers={"range": "bytes=0-"}).status_code == 416
    assert download_client.get("/empty.bin", headers={"range": "bytes=-5"}).status_code == 200


def test_send_file_if_none_match(download_client: TestClient) -> None:
    tag = download_client.get("/a/video.mp4").headers["etag"]
    for condition in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        response = download_client.get("/a/video.mp4", headers={"if-none-match": condition, "range": "bytes=0-1"})
        assert (response.status_code, response.content, response.headers["etag"]) == (304, b"", tag)
        assert download_client.head("/a/video.mp4", headers={"if-none-match": condition}).status_code == 304
    last_modified = download_client.get("/a/video.mp4").headers["last-modified"]
    response = download_client.get("/a/video.mp4", headers={"if-none-match": '"x"', "if-modified-since": last_modified})
    assert response.status_code == 200  # the ETag has priority


def test_send_file_if_modified_since(download_client: TestClient) -> None:
    last_modified = download_client.get("/a/video.mp4").headers["last-modified"]
    assert download_client.get("/a/video.mp4", headers={"if-modified-since": last_modified}).status_code == 304
    for older_date in ("Thu, 01 Jan 1970 00:00:00 GMT", "yesterday", "", "Thu, 01 Jan 99999 00:00:00 GMT"):
        assert download_client.get("/a/video.mp4", headers={"if-modified-since": older_date}).status_code == 200


def test_send_file_if_range(download_client: TestClient) -> None:
    headers = download_client.get("/a/video.mp4").headers
    for right in (headers["etag"], headers["last-modified"]):
        assert download_client.get("/a/video.mp4", headers={"range": "bytes=0-1", "if-range": right}).status_code == 206
    for wrong in ('"x"', f"W/{headers['etag']}", "Thu, 01 Jan 1970 00:00:00 GMT", ""):
        whole = download_client.get("/a/video.mp4", headers={"range": "bytes=0-1", "if-range": wrong})
        assert (whole.status_code, whole.content) == (200, BYTES)


def test_etag_changes_with_content(download_client: TestClient, folder: Path) -> None:
    before = download_client.get("/a/video.mp4").headers["etag"]
    (folder / "new").write_bytes(BYTES)
    (folder / "new").replace(folder / "a" / "video.mp4")
    assert download_client.get("/a/video.mp4").headers["etag"] != before
    assert download_client.get("/a/video.mp4?sha256=abc").headers["etag"] == '"abc"'


def test_send_file_inline_only_for_harmless_types(download_client: TestClient, folder: Path) -> None:
    for suffix, kind in INLINE.items():
        (folder / f"a.{suffix}").write_bytes(b"x")
        headers = download_client.get(f"/a.{suffix}?inline=true").headers
        assert (headers["content-type"], headers["content-disposition"].split(";")[0]) == (kind, "inline")
    (folder / "a.svg").write_text("<svg onload='alert(1)'/>")
    for name in ("/a.svg?inline=true", "/page.html"):
        headers = download_client.get(name).headers
        assert headers["content-type"] == "application/octet-stream"
        assert headers["content-disposition"].startswith("attachment")


def test_send_file_html_is_sandboxed(download_client: TestClient) -> None:
    rules = [
        rule.strip()
        for rule in download_client.get("/page.html?inline=true").headers["content-security-policy"].split(";")
    ]
    assert rules[0] == "sandbox allow-scripts"  # and not allow-same-origin
    assert "default-src 'none'" in rules
    assert not any(rule.startswith(("connect-src", "form-action *", "frame-src")) for rule in rules)


@pytest.mark.parametrize("name", ["nothing", "a", "a/nothing", "a%2f..%2fempty.bin", "..%2fx", "empty.bin/x", ".", ""])
def test_send_file_missing(download_client: TestClient, name: str) -> None:
    assert download_client.get(f"/{name}").status_code in (404, 409)


def test_send_file_rejects_links(download_client: TestClient, folder: Path) -> None:
    (folder / "link.bin").symlink_to(folder / "empty.bin")
    (folder / "b").symlink_to(folder / "a")
    assert download_client.get("/link.bin").status_code == 409
    assert download_client.get("/b/video.mp4").status_code == 409


def test_send_file_beyond_two_gigabytes(download_client: TestClient, folder: Path) -> None:
    with (folder / "large.bin").open("wb") as file:
        file.truncate(5 << 30)  # sparse
        os.pwrite(file.fileno(), b"here", 3 << 30)
    response = download_client.get("/large.bin", headers={"range": f"bytes={3 << 30}-{(3 << 30) + 3}"})
    assert response.content == b"here"
    assert download_client.head("/large.bin").headers["content-length"] == str(5 << 30)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.jpg", 'attachment; filename="a.jpg"'),
        ("a b.jpg", "attachment; filename=\"a b.jpg\"; filename*=UTF-8''a%20b.jpg"),
        ("é.jpg", "attachment; filename=\"_.jpg\"; filename*=UTF-8''%C3%A9.jpg"),
        ('a"\r\nx: y.jpg', "attachment; filename=\"a___x_ y.jpg\"; filename*=UTF-8''a%22%0D%0Ax%3A%20y.jpg"),
        ("../a.jpg", 'attachment; filename="a.jpg"'),
    ],
)
def test_disposition(name: str, expected: str) -> None:
    assert disposition(name, "attachment") == expected
