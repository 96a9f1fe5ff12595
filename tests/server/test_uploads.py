"""The tus protocol and the plain routes, request by request. Interrupted uploads are in test_broken."""

import base64
import hashlib
import io
import os
import time
import zipfile
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from lumigraph.server.api import uploads
from lumigraph.server.files import project_files, safe_open
from lumigraph.server.files.quotas import Limits, QuotaLedger
from lumigraph.server.problems import MEDIA_TYPE
from tests.server import sample_images
from tests.server.running_server import application

TUS = {"tus-resumable": "1.0.0"}
BODY = {**TUS, "content-type": "application/offset+octet-stream"}
UPLOADS = "/projects/p/uploads"
FILES = "/projects/p/files"


def metadata(name: str) -> dict[str, str]:
    return {"upload-metadata": f"filename {base64.b64encode(name.encode()).decode()},filetype {'dGV4dA=='}"}


def declare(client: TestClient, name: str, length: int, **more: str) -> httpx.Response:
    query = "?overwrite=true" if more.pop("overwrite", "") else ""
    headers = {**TUS, **metadata(name), "upload-length": str(length), **more}
    response: httpx.Response = client.post(UPLOADS + query, headers=headers)
    return response


def partial_files(data: Path) -> list[str]:
    """List the files of uploads/ without the declarations."""
    folder = data / "p" / "uploads"
    return sorted(item.name for item in folder.iterdir() if item.suffix != ".json") if folder.is_dir() else []


def test_tus_options(client: TestClient) -> None:
    response = client.options(UPLOADS)
    assert response.status_code == 204
    headers = response.headers
    assert (headers["tus-version"], headers["tus-resumable"]) == ("1.0.0", "1.0.0")
    assert set(headers["tus-extension"].split(",")) >= {"creation", "creation-with-upload", "termination", "checksum"}
    assert headers["tus-max-size"] == str(Limits().file_bytes)
    assert headers["tus-checksum-algorithm"] == "sha1,sha256"


def test_tus_patch_in_chunks(client: TestClient, data: Path) -> None:
    creation = declare(client, "a/b.txt", 10)
    assert creation.status_code == 201
    location = creation.headers["location"]
    assert location.startswith(UPLOADS + "/")
    assert "upload-expires" in creation.headers
    for offset, chunk in ((0, b"0123"), (4, b""), (4, b"456789")):
        head = client.head(location, headers=TUS)
        assert (head.headers["upload-offset"], head.headers["upload-length"]) == (str(offset), "10")
        assert head.headers["cache-control"] == "no-store"
        assert head.headers["upload-metadata"].startswith("filename ")
        assert not (data / "p" / "files").exists()
        response = client.patch(location, headers={**BODY, "upload-offset": str(offset)}, content=chunk)
        assert (response.status_code, response.headers["upload-offset"]) == (204, str(offset + len(chunk)))
    assert (data / "p" / "files" / "a" / "b.txt").read_bytes() == b"0123456789"
    assert partial_files(data) == []
    head = client.head(location, headers=TUS)  # for a client that lost the last response
    assert (head.status_code, head.headers["upload-offset"]) == (200, "10")
    late = client.patch(location, headers={**BODY, "upload-offset": "10"}, content=b"")
    assert late.status_code == 404


def test_tus_creation_with_upload(client: TestClient, data: Path) -> None:
    headers = {**BODY, **metadata("a.txt"), "upload-length": "4"}
    half = client.post(UPLOADS, headers=headers, content=b"01")
    assert (half.status_code, half.headers["upload-offset"]) == (201, "2")
    complete = client.post(UPLOADS, headers={**headers, **metadata("b.txt")}, content=b"0123")
    assert (complete.status_code, complete.headers["upload-offset"]) == (201, "4")
    assert (data / "p" / "files" / "b.txt").read_bytes() == b"0123"
    assert declare(client, "empty.txt", 0).status_code == 201
    assert (data / "p" / "files" / "empty.txt").read_bytes() == b""


def test_tus_termination(client: TestClient, data: Path) -> None:
    location = declare(client, "a.txt", 4).headers["location"]
    client.patch(location, headers={**BODY, "upload-offset": "0"}, content=b"01")
    assert client.delete(location, headers=TUS).status_code == 204
    assert list((data / "p" / "uploads").iterdir()) == []
    for response in (client.head(location, headers=TUS), client.delete(location, headers=TUS)):
        assert response.status_code == 404
        assert response.headers["tus-resumable"] == "1.0.0"


def test_tus_method_override(client: TestClient, data: Path) -> None:
    location = declare(client, "a.txt", 2).headers["location"]
    patch = {**BODY, "upload-offset": "0", "x-http-method-override": "PATCH"}
    assert client.post(location, headers=patch, content=b"01").headers["upload-offset"] == "2"
    assert client.post(location, headers={**TUS, "x-http-method-override": "DELETE"}).status_code == 204
    assert client.post(location, headers=TUS).status_code == 405
    assert (data / "p" / "files" / "a.txt").exists()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"tus-resumable": "0.2.2"}, 412),
        ({"upload-length": "-1"}, 400),
        ({"upload-length": "1e9"}, 400),
        ({"upload-length": ""}, 400),
        ({"upload-length": "9" * 30}, 400),
        ({"upload-length": "10000000000000"}, 413),
        ({"upload-defer-length": "1"}, 400),
        ({"upload-metadata": "filename ***"}, 400),
        ({"upload-metadata": "filename /w=="}, 400),
        ({"upload-metadata": "filetype YQ=="}, 400),
        ({"upload-metadata": "x YQ==," * 1000}, 400),
        (metadata("../a.txt"), 422),
        (metadata("a.exe"), 415),
    ],
)
def test_tus_rejects_invalid_declarations(client: TestClient, data: Path, headers: dict[str, str], status: int) -> None:
    response = client.post(UPLOADS, headers={**TUS, **metadata("a.txt"), "upload-length": "4", **headers})
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == MEDIA_TYPE
    assert response.headers["tus-resumable"] == "1.0.0"
    assert partial_files(data) == []


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"content-type": "application/octet-stream"}, b"", 415),
        ({"upload-offset": "x"}, b"", 400),
        ({"upload-offset": "1"}, b"01", 409),
        ({}, b"01234", 413),
        ({"tus-resumable": "2.0.0"}, b"", 412),
        ({"upload-checksum": "md5 AAAA"}, b"01", 400),
        ({"upload-checksum": "sha1 *"}, b"01", 400),
        ({"upload-checksum": "sha1 AAAA"}, b"01", 460),
    ],
)
def test_tus_rejects_invalid_patches(
    client: TestClient, data: Path, headers: dict[str, str], body: bytes, status: int
) -> None:
    location = declare(client, "a.txt", 4).headers["location"]
    response = client.patch(location, headers={**BODY, "upload-offset": "0", **headers}, content=body)
    assert response.status_code == status, response.text
    assert client.head(location, headers=TUS).headers["upload-offset"] == "0"
    assert client.patch(location, headers={**BODY, "upload-offset": "0"}, content=b"0123").status_code == 204


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_tus_checksums(client: TestClient, algorithm: str) -> None:
    location = declare(client, "a.txt", 4).headers["location"]
    valid_checksum = f"{algorithm} {base64.b64encode(hashlib.new(algorithm, b'01').digest()).decode()}"
    for offset, status in ((0, 204), (2, 460)):
        headers = {**BODY, "upload-offset": str(offset), "upload-checksum": valid_checksum}
        assert client.patch(location, headers=headers, content=b"01" if offset == 0 else b"23").status_code == status
    assert client.head(location, headers=TUS).headers["upload-offset"] == "2"


@pytest.mark.parametrize(
    "upload", ["x", "..", "0" * 32, "0" * 31 + "g", "0" * 32 + ".json", "%2e%2e", "0" * 32 + "%00"]
)
def test_tus_unknown_uploads(client: TestClient, upload: str) -> None:
    location = f"{UPLOADS}/{upload}"
    responses = [client.head(location, headers=TUS), client.delete(location, headers=TUS)]
    responses.append(client.patch(location, headers={**BODY, "upload-offset": "0"}, content=b"x"))
    assert all(response.status_code in (404, 405) for response in responses), responses


def test_tus_upload_belongs_to_project(client: TestClient, data: Path) -> None:
    (data / "q").mkdir()
    location = declare(client, "a.txt", 4).headers["location"]
    assert client.head(location.replace("/p/", "/q/"), headers=TUS).status_code == 404


# -- plain routes ----------------------------------------------------------------------------------------------------


def test_files_put_list_get_delete(client: TestClient, data: Path) -> None:
    assert client.get(FILES).json() == []
    response = client.put(f"{FILES}/b/c.txt", content=b"hello")
    assert response.status_code == 201
    stored_file = response.json()
    assert (stored_file["name"], stored_file["bytes"]) == ("b/c.txt", 5)
    assert stored_file["etag"] == response.headers["etag"]
    client.put(f"{FILES}/a.txt", content=iter([b"he", b"llo"]))
    assert [item["name"] for item in client.get(FILES).json()] == ["a.txt", "b/c.txt"]
    download = client.get(f"{FILES}/b/c.txt")
    assert (download.content, download.headers["etag"]) == (b"hello", stored_file["etag"])
    assert download.headers["content-disposition"].startswith("attachment")
    assert client.head(f"{FILES}/b/c.txt").headers["content-length"] == "5"
    assert client.delete(f"{FILES}/b/c.txt").status_code == 204
    assert client.delete(f"{FILES}/b/c.txt").status_code == 404
    assert client.get(f"{FILES}/b/c.txt").status_code == 404
    assert [item.name for item in (data / "p" / "files").iterdir()] == ["a.txt"]  # the empty folder is removed too
    assert partial_files(data) == []


@pytest.mark.parametrize("second_name", ["a/b.txt", "a/B.TXT", "A/b.txt", "A/c.txt", "a.txt/c.txt", "a"])
def test_files_name_collisions(client: TestClient, data: Path, second_name: str) -> None:
    """Names also collide if only case-insensitive file systems treat them as equal."""
    client.put(f"{FILES}/a/b.txt", content=b"first")
    client.put(f"{FILES}/a.txt", content=b"first")
    name = second_name if second_name != "a" else "a/b.txt/c.txt"
    for response in (client.put(f"{FILES}/{name}", content=b"second"), declare(client, name, 6)):
        assert response.status_code == 409, response.text
    assert (data / "p" / "files" / "a" / "b.txt").read_bytes() == b"first"
    assert partial_files(data) == []


def test_files_overwrite(client: TestClient, data: Path) -> None:
    client.put(f"{FILES}/a.txt", content=b"first")
    response = client.put(f"{FILES}/A.txt?overwrite=true", content=b"second")
    assert response.status_code == 200
    assert [item["name"] for item in client.get(FILES).json()] == ["A.txt"]
    location = declare(client, "A.txt", 5, overwrite="yes").headers["location"]
    assert client.patch(location, headers={**BODY, "upload-offset": "0"}, content=b"third").status_code == 204
    assert (data / "p" / "files" / "A.txt").read_bytes() == b"third"
    assert client.put(f"{FILES}/A.txt/b.txt?overwrite=true", content=b"x").status_code == 409


def test_tus_name_taken_during_upload(client: TestClient, data: Path) -> None:
    location = declare(client, "a.txt", 5).headers["location"]
    client.put(f"{FILES}/a.txt", content=b"first")
    assert client.patch(location, headers={**BODY, "upload-offset": "0"}, content=b"other").status_code == 409
    assert (data / "p" / "files" / "a.txt").read_bytes() == b"first"
    assert partial_files(data) == []


def test_files_reject_wrong_content(client: TestClient, data: Path) -> None:
    bomb = sample_images.png(40_000, 30_000)
    for name, content, status in (("a.png", bomb, 413), ("a.jpg", bomb, 415), ("a.png", b"<svg>", 415)):
        put = client.put(f"{FILES}/{name}", content=content)
        location = declare(client, name, len(content)).headers["location"]
        patch_response = client.patch(location, headers={**BODY, "upload-offset": "0"}, content=content)
        assert put.status_code == patch_response.status_code == status, put.text
        assert client.head(location, headers=TUS).status_code == 404
    assert client.get(FILES).json() == []
    assert partial_files(data) == []
    assert client.put(f"{FILES}/a.png", content=sample_images.png(4000, 3000)).status_code == 201


def test_tus_rejects_wrong_content_early(data: Path) -> None:
    """The first bytes suffice for a rejection, which also frees the reserved space."""
    client = limited_client(data, project_bytes=30_000_000_000)
    location = declare(client, "video.mp4", 20_000_000_000).headers["location"]
    patch_response = client.patch(location, headers={**BODY, "upload-offset": "0"}, content=b"<html>" * 100)
    assert patch_response.status_code == 415
    assert client.head(location, headers=TUS).status_code == 404
    assert partial_files(data) == []
    assert declare(client, "video.mp4", 20_000_000_000).status_code == 201


def test_files_zip_is_not_extracted(client: TestClient, data: Path) -> None:
    archive_bytes = io.BytesIO()
    with zipfile.ZipFile(archive_bytes, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../evil.txt", "x")
        archive.writestr("bomb.bin", b"\0" * 20_000_000)
    assert client.put(f"{FILES}/a.zip", content=archive_bytes.getvalue()).status_code == 201
    assert [str(item.relative_to(data)) for item in sorted(data.rglob("*"))] == [
        "p",
        "p/files",
        "p/files/a.zip",
        "p/uploads",
    ]


# -- limits ----------------------------------------------------------------------------------------------------------


def limited_client(data: Path, **bounds: int) -> TestClient:
    return TestClient(application(data, Limits(**{"free_bytes": 0, **bounds})), raise_server_exceptions=False)


def test_limits_file_bytes(data: Path) -> None:
    client = limited_client(data, file_bytes=1000)
    response = declare(client, "a.txt", 10_000_000_000)
    assert (response.status_code, response.headers["tus-max-size"]) == (413, "1000")
    assert client.put(f"{FILES}/a.txt", content=b"x" * 1001).status_code == 413
    assert client.put(f"{FILES}/a.txt", content=iter([b"x" * 600] * 2)).status_code == 413
    assert client.put(f"{FILES}/a.txt", content=b"x" * 1000).status_code == 201
    assert partial_files(data) == []


def test_limits_project_bytes(data: Path) -> None:
    client = limited_client(data, project_bytes=1000)
    assert client.put(f"{FILES}/a.txt", content=b"x" * 600).status_code == 201
    assert client.put(f"{FILES}/b.txt", content=b"x" * 600).status_code == 413
    assert client.put(f"{FILES}/b.txt", content=iter([b"x" * 300] * 2)).status_code == 413
    assert declare(client, "b.txt", 401).status_code == 413
    location = declare(client, "b.txt", 400).headers["location"]  # reserves 400 bytes
    assert client.put(f"{FILES}/c.txt", content=b"x").status_code == 413
    client.delete(location, headers=TUS)
    assert client.put(f"{FILES}/c.txt", content=b"x").status_code == 201
    client.delete(f"{FILES}/a.txt")
    assert client.put(f"{FILES}/b.txt", content=b"x" * 999).status_code == 201


def test_limits_project_files(data: Path) -> None:
    client = limited_client(data, project_files=2)
    assert client.put(f"{FILES}/a.txt", content=b"x").status_code == 201
    location = declare(client, "b.txt", 1).headers["location"]
    assert declare(client, "c.txt", 1).status_code == client.put(f"{FILES}/c.txt", content=b"x").status_code == 413
    client.delete(location, headers=TUS)
    assert client.put(f"{FILES}/c.txt", content=b"x").status_code == 201


def test_limits_free_bytes(data: Path) -> None:
    disk = os.statvfs(data)
    client = limited_client(data, free_bytes=disk.f_bavail * disk.f_frsize - 500_000_000, file_bytes=10**13)
    assert declare(client, "a.txt", 2_000_000_000).status_code == 507
    full = limited_client(data, free_bytes=10**15)
    assert full.put(f"{FILES}/a.txt", content=b"x").status_code == 507
    assert full.get(FILES).status_code == 200
    assert partial_files(data) == []


def test_quota_ledger_matches_disk(client: TestClient, data: Path) -> None:
    client.put(f"{FILES}/a/a.txt", content=b"x" * 10)
    client.put(f"{FILES}/b.txt", content=b"x" * 20)
    client.put(f"{FILES}/b.txt?overwrite=true", content=b"x" * 30)
    declare(client, "c.txt", 100)
    declare(client, "d.txt", 2, **{"content-type": "application/offset+octet-stream"})
    assert uploads.count_usage(data / "p") == (142, 4)
    counted_roots: list[Path] = []

    def count(root: Path) -> tuple[int, int]:
        counted_roots.append(root)
        return 5, 1

    ledger = QuotaLedger(Limits(project_bytes=10), count, stale_seconds=60)
    for _ in range(3):
        ledger.reserve(data, 1, 1)
    ledger.release(data, 3, 3)
    ledger.reserve(data, 5)
    assert counted_roots == [data]


def test_tus_sweeps_expired_uploads(client: TestClient, data: Path) -> None:
    old = declare(client, "a.txt", 4).headers["location"].rpartition("/")[2]
    new = declare(client, "b.txt", 4).headers["location"].rpartition("/")[2]
    folder = data / "p" / "uploads"
    orphan = folder / ("0" * 32)
    for path, days in ((folder / old, 8), (folder / f"{old}.json", 8), (folder / f"{new}.json", 8), (orphan, 1)):
        path.touch()
        os.utime(path, (time.time() - 86_400 * days,) * 2)
    with TestClient(application(data)) as restarted_client:
        declare(restarted_client, "c.txt", 4)
    names = {path.name for path in folder.iterdir()}
    assert {new, f"{new}.json"} <= names
    assert not names & {old, f"{old}.json", orphan.name}


# -- OpenAPI document ------------------------------------------------------------------------------------------------


def test_tus_statuses_in_openapi(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    patch = document["paths"]["/projects/{project}/uploads/{upload}"]["patch"]["responses"]
    assert {
        "204",
        "400",
        "401",
        "403",
        "404",
        "408",
        "409",
        "412",
        "413",
        "415",
        "422",
        "423",
        "460",
        "500",
        "507",
    } == set(patch)
    assert "StoredFile" in document["components"]["schemas"]


def test_tus_router_prefix(data: Path) -> None:
    app = FastAPI()
    app.include_router(uploads.router(lambda project: data / project, Limits(free_bytes=0)), prefix="/api/v1")
    with TestClient(app) as client:
        response = client.post("/api/v1" + UPLOADS, headers={**TUS, **metadata("a.txt"), "upload-length": "4"})
        assert response.headers["location"].startswith("/api/v1/projects/p/uploads/")


def test_tus_locks_partial_file(client: TestClient, data: Path) -> None:
    location = declare(client, "a.txt", 4).headers["location"]
    with safe_open.folder(data / "p", (project_files.UPLOADS,)) as folder:
        locked_file = safe_open.file(folder, location.rpartition("/")[2], os.O_RDWR)
    project_files.lock(locked_file)
    assert client.patch(location, headers={**BODY, "upload-offset": "0"}, content=b"0123").status_code == 423
    os.close(locked_file)
    assert client.patch(location, headers={**BODY, "upload-offset": "0"}, content=b"0123").status_code == 204
