"""Interrupted uploads to a real server: lost connections, kills, a full disk, endless bodies."""

import contextlib
import errno
import hashlib
import io
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from tusclient.client import TusClient

from lumigraph.server.files import body_writer
from lumigraph.server.files.quotas import Limits
from tests.server.running_server import application, serve
from tests.server.test_uploads import BODY, FILES, TUS, UPLOADS, metadata

ROOT = Path(__file__).parents[2]
DATA = b"".join(hashlib.sha256(str(i).encode()).digest() for i in range(150_000))  # 4.8 MB without repeated blocks


@pytest.fixture
def url(data: Path) -> Iterator[str]:
    with serve(application(data, Limits(free_bytes=0, idle_seconds=1.0))) as url:
        yield url


def begin(url: str, name: str, length: int) -> str:
    headers = {**TUS, **metadata(name), "upload-length": str(length)}
    return url + httpx.post(url + UPLOADS, headers=headers).headers["location"]


def offset(location: str) -> int:
    return int(httpx.head(location, headers=TUS).headers["upload-offset"])


def half_open(location: str, at: int, body: bytes, total: int) -> socket.socket:
    """Open a PATCH that declares `total` bytes and sends only `body`."""
    address = httpx.URL(location)
    connection = socket.create_connection((address.host, address.port))
    lines = [f"PATCH {address.path} HTTP/1.1", f"Host: {address.host}:{address.port}", f"Content-Length: {total}"]
    lines += [f"{key}: {value}" for key, value in {**BODY, "upload-offset": str(at)}.items()]
    connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
    return connection


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.005)


def partial(data: Path) -> Path:
    (result,) = [item for item in (data / "p" / "uploads").iterdir() if item.suffix != ".json"]
    return result


def test_upload_tuspy_interoperates(url: str, data: Path) -> None:
    """tuspy uploads in chunks with checksums; a second client that knows only the address finishes."""
    client = TusClient(url + UPLOADS)
    first = client.uploader(
        file_stream=io.BytesIO(DATA), chunk_size=1_000_000, metadata={"filename": "a.bin"}, upload_checksum=True
    )
    first.upload(stop_at=2_000_000)
    second = client.uploader(file_stream=io.BytesIO(DATA), url=first.url, chunk_size=700_000)
    assert second.offset == 2_000_000
    second.upload()
    assert (data / "p" / "files" / "a.bin").read_bytes() == DATA


def test_upload_lost_connection_keeps_received_bytes(url: str, data: Path) -> None:
    location = begin(url, "a.bin", len(DATA))
    half_open(location, 0, DATA[:3_000_000], len(DATA)).close()
    wait_until(lambda: partial(data).stat().st_size == 3_000_000)
    assert offset(location) == 3_000_000
    TusClient(url + UPLOADS).uploader(file_stream=io.BytesIO(DATA), url=location).upload()
    assert (data / "p" / "files" / "a.bin").read_bytes() == DATA


def test_upload_newest_connection_wins(url: str, data: Path) -> None:
    """A dead connection that is still open does not block its owner from resuming."""
    location = begin(url, "a.bin", len(DATA))
    dead = half_open(location, 0, DATA[:3_000_000], len(DATA))
    wait_until(lambda: partial(data).stat().st_size > 0)
    start = time.monotonic()
    received_bytes = offset(location)
    assert received_bytes == 3_000_000
    assert time.monotonic() - start < 0.8  # less than the idle timeout of 1 s
    response = httpx.patch(
        location, headers={**BODY, "upload-offset": str(received_bytes)}, content=DATA[received_bytes:]
    )
    assert response.status_code == 204
    assert (data / "p" / "files" / "a.bin").read_bytes() == DATA
    assert b"409" in dead.recv(100)
    dead.close()


def test_upload_unverified_bytes_are_dropped(url: str, data: Path) -> None:
    location = begin(url, "a.bin", len(DATA))
    address = httpx.URL(location)
    connection = socket.create_connection((address.host, address.port))
    headers = {**BODY, "upload-offset": "0", "upload-checksum": "sha1 AAAA", "content-length": "9999999", "host": "x"}
    lines = [f"PATCH {address.path} HTTP/1.1", *(f"{key}: {value}" for key, value in headers.items()), "", ""]
    connection.sendall("\r\n".join(lines).encode() + DATA[:2_500_000])
    wait_until(lambda: partial(data).stat().st_size > 0)
    connection.close()
    assert offset(location) == 0


def test_upload_slow_body_times_out(url: str, data: Path) -> None:
    location = begin(url, "a.bin", len(DATA))
    slow = half_open(location, 0, DATA[:1000], len(DATA))
    times = []
    for _ in range(20):
        start = time.monotonic()
        assert httpx.get(url + FILES).status_code == 200
        times.append(time.monotonic() - start)
    slow.settimeout(10)
    assert b" 408 " in slow.recv(1000)
    assert sorted(times)[10] < 0.5
    assert offset(location) == 1000
    slow.close()


def test_put_endless_body_is_cut(data: Path) -> None:
    sent_bytes = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent_bytes
        while True:
            sent_bytes += 1 << 20
            yield b"x" * (1 << 20)

    with serve(application(data, Limits(free_bytes=0, file_bytes=10_000_000))) as url:
        start = time.monotonic()
        with contextlib.suppress(httpx.TransportError):  # the server may close before the client reads the response
            assert httpx.put(f"{url}{FILES}/a.txt", content=endless(), timeout=20).status_code == 413
        assert time.monotonic() - start < 8
        assert sent_bytes < 10_000_000 + body_writer.LINGER_BYTES + (32 << 20)
        assert httpx.get(url + FILES).json() == []
    assert list((data / "p" / "uploads").iterdir()) == []


@pytest.mark.parametrize("expect", ["", "Expect: 100-continue\r\n"])
def test_put_rejects_declared_size_before_body(data: Path, expect: str) -> None:
    """The response arrives although the body is never sent."""
    with serve(application(data, Limits(free_bytes=0, file_bytes=1000))) as url:
        address = httpx.URL(url)
        with socket.create_connection((address.host, address.port)) as connection:
            length = f"Content-Length: 10000000000\r\n{expect}\r\n"
            connection.sendall(f"PUT {FILES}/a.txt HTTP/1.1\r\nHost: x\r\n{length}".encode())
            connection.settimeout(5)
            response = connection.recv(4096)
        assert b" 413 " in response.split(b"\r\n")[0] and b"application/problem+json" in response


def test_download_unread_stops_reading(url: str, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (data / "p" / "files").mkdir()
    with (data / "p" / "files" / "a.bin").open("wb") as file:
        file.truncate(4 << 30)  # sparse
    reads: list[int] = []
    real = os.pread

    def read(descriptor: int, count: int, at: int) -> bytes:
        reads.append(at)
        return real(descriptor, count, at)

    monkeypatch.setattr(os, "pread", read)
    with httpx.stream("GET", f"{url}{FILES}/a.bin") as response:
        next(response.iter_raw(1 << 20))
    time.sleep(0.2)
    before = len(reads)
    time.sleep(0.2)
    assert len(reads) == before < 200


def test_put_concurrent_requests(url: str, data: Path) -> None:
    responses: list[int] = []

    def put(i: int) -> None:
        responses.append(httpx.put(f"{url}{FILES}/{i % 6}.bin", content=DATA[i:], timeout=120).status_code)

    threads = [threading.Thread(target=put, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(responses) == [201] * 6 + [409] * 6  # one success for each name
    for i in range(6):
        assert (data / "p" / "files" / f"{i}.bin").read_bytes() in (DATA[i:], DATA[i + 6 :])


# -- a full disk -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT])
def test_upload_full_disk(url: str, data: Path, monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    real = os.pwrite
    disk_bytes = 3_000_000

    def write(descriptor: int, block: memoryview, at: int) -> int:
        if at >= disk_bytes:
            raise OSError(error, os.strerror(error))
        return real(descriptor, block[: disk_bytes - at], at)  # the last write is short, as on a real disk

    location = begin(url, "a.bin", len(DATA))
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", write)
        responses = [
            httpx.patch(location, headers={**BODY, "upload-offset": "0"}, content=DATA),
            httpx.put(f"{url}{FILES}/b.bin", content=DATA),
        ]
        for response in responses:
            assert response.status_code == 507
            assert response.headers["content-type"] == "application/problem+json"
    assert offset(location) == disk_bytes
    assert httpx.get(url + FILES).json() == []
    retry = httpx.patch(location, headers={**BODY, "upload-offset": str(disk_bytes)}, content=DATA[disk_bytes:])
    assert retry.status_code == 204  # the disk has space again
    assert (data / "p" / "files" / "a.bin").read_bytes() == DATA
    assert [item.suffix for item in (data / "p" / "uploads").iterdir()] == [".json"]


# -- kill -9 ---------------------------------------------------------------------------------------------------------


def start(data: Path, file_bytes: int = resource.RLIM_INFINITY) -> tuple[subprocess.Popen[str], str]:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, resource.RLIM_INFINITY))

    command = [sys.executable, "-m", "tests.server.running_server", str(data)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, preexec_fn=limit)
    assert process.stdout is not None
    return process, f"http://127.0.0.1:{process.stdout.readline().strip()}"


def ready(url: str) -> str:
    def is_up() -> bool:
        try:
            return httpx.get(url + FILES).status_code == 200
        except httpx.TransportError:
            return False

    wait_until(is_up, 30)
    return url


def test_upload_resumes_after_server_kill(data: Path) -> None:
    """After a kill in the middle of a PATCH the disk holds a prefix of the file, and the upload resumes.

    The second server runs with a limit on file sizes, so that the system rejects one of its writes.
    """
    process, url = start(data)
    try:
        location = begin(ready(url), "a.bin", len(DATA))
        body = half_open(location, 0, DATA[:4_000_000], len(DATA))
        wait_until(lambda: partial(data).stat().st_size >= 2_000_000)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        body.close()
    finally:
        process.kill()
    received_bytes = partial(data).stat().st_size
    assert 2_000_000 <= received_bytes <= 4_000_000
    assert partial(data).read_bytes() == DATA[:received_bytes]
    assert not (data / "p" / "files").exists()

    process, second_url = start(data, file_bytes=4_200_000)
    try:
        location = location.replace(url, ready(second_url))
        assert offset(location) == received_bytes
        rejection = httpx.patch(
            location, headers={**BODY, "upload-offset": str(received_bytes)}, content=DATA[received_bytes:]
        )
        assert rejection.status_code == 507
        assert offset(location) == 4_200_000
    finally:
        process.kill()
        process.wait()

    with serve(application(data)) as third_url:
        location = location.replace(second_url, third_url)
        response = httpx.patch(location, headers={**BODY, "upload-offset": "4200000"}, content=DATA[4_200_000:])
        assert response.status_code == 204
    assert (data / "p" / "files" / "a.bin").read_bytes() == DATA


def test_upload_resumes_after_kill_before_move(data: Path) -> None:
    """A HEAD request finishes the upload after a kill before or after the note of completion."""
    for is_noted_done in (False, True):
        name = f"{is_noted_done}.txt"
        with serve(application(data)) as url:
            location = begin(url, name, 4)
            partial(data).write_bytes(b"0123")
            if is_noted_done:
                note = partial(data).with_suffix(".json")
                note.write_text(note.read_text().replace('"done":false', '"done":true'))
            assert offset(location) == 4
            assert (data / "p" / "files" / name).read_bytes() == b"0123"
            assert offset(location) == 4
