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
from tests.server.running_server import application, served
from tests.server.test_uploads import BODY, FILES, TUS, UPLOADS, metadata

ROOT = Path(__file__).parents[2]
DATA = b"".join(hashlib.sha256(str(i).encode()).digest() for i in range(150_000))  # 4.8 MB, no two places alike


@pytest.fixture
def url(data: Path) -> Iterator[str]:
    with served(application(data, Limits(free_bytes=0, idle_seconds=1.0))) as url:
        yield url


def begin(url: str, name: str, length: int) -> str:
    headers = {**TUS, **metadata(name), "upload-length": str(length)}
    return url + httpx.post(url + UPLOADS, headers=headers).headers["location"]


def offset(where: str) -> int:
    return int(httpx.head(where, headers=TUS).headers["upload-offset"])


def half_open(where: str, at: int, patch_response: bytes, total: int) -> socket.socket:
    """A PATCH that says that it has `total` bytes and sends fewer."""
    address = httpx.URL(where)
    connection = socket.create_connection((address.host, address.port))
    lines = [f"PATCH {address.path} HTTP/1.1", f"Host: {address.host}:{address.port}", f"Content-Length: {total}"]
    lines += [f"{key}: {value}" for key, value in {**BODY, "upload-offset": str(at)}.items()]
    connection.sendall("\r\n".join([*lines, "", ""]).encode() + patch_response)
    return connection


def until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.005)


def partial(data: Path) -> Path:
    (result,) = [item for item in (data / "p" / "uploads").iterdir() if item.suffix != ".json"]
    return result


def test_upload_tuspy_interoperates(url: str, data: Path) -> None:
    """tuspy: in pieces, with checksums; then a second client that only knows the address."""
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
    where = begin(url, "a.bin", len(DATA))
    half_open(where, 0, DATA[:3_000_000], len(DATA)).close()
    until(lambda: partial(data).stat().st_size == 3_000_000)
    assert offset(where) == 3_000_000
    TusClient(url + UPLOADS).uploader(file_stream=io.BytesIO(DATA), url=where).upload()
    assert (data / "p" / "files" / "a.bin").read_bytes() == DATA


def test_upload_newest_connection_wins(url: str, data: Path) -> None:
    """A connection that is dead without knowing it does not keep its owner from going on."""
    where = begin(url, "a.bin", len(DATA))
    dead = half_open(where, 0, DATA[:3_000_000], len(DATA))
    until(lambda: partial(data).stat().st_size > 0)
    start = time.monotonic()
    received_bytes = offset(where)
    assert received_bytes == 3_000_000
    assert time.monotonic() - start < 0.8  # not the second of idleness
    answer = httpx.patch(where, headers={**BODY, "upload-offset": str(received_bytes)}, content=DATA[received_bytes:])
    assert answer.status_code == 204
    assert (data / "p" / "files" / "a.bin").read_bytes() == DATA
    assert b"409" in dead.recv(100)
    dead.close()


def test_upload_unverified_bytes_are_dropped(url: str, data: Path) -> None:
    where = begin(url, "a.bin", len(DATA))
    address = httpx.URL(where)
    connection = socket.create_connection((address.host, address.port))
    headers = {**BODY, "upload-offset": "0", "upload-checksum": "sha1 AAAA", "content-length": "9999999", "host": "x"}
    lines = [f"PATCH {address.path} HTTP/1.1", *(f"{key}: {value}" for key, value in headers.items()), "", ""]
    connection.sendall("\r\n".join(lines).encode() + DATA[:2_500_000])
    until(lambda: partial(data).stat().st_size > 0)
    connection.close()
    assert offset(where) == 0


def test_upload_slow_body_times_out(url: str, data: Path) -> None:
    where = begin(url, "a.bin", len(DATA))
    slow = half_open(where, 0, DATA[:1000], len(DATA))
    times = []
    for _ in range(20):
        start = time.monotonic()
        assert httpx.get(url + FILES).status_code == 200
        times.append(time.monotonic() - start)
    slow.settimeout(10)
    assert b" 408 " in slow.recv(1000)
    assert sorted(times)[10] < 0.5
    assert offset(where) == 1000
    slow.close()


def test_put_endless_body_is_cut(data: Path) -> None:
    patch_response = 0

    def endless() -> Iterator[bytes]:
        nonlocal patch_response
        while True:
            patch_response += 1 << 20
            yield b"x" * (1 << 20)

    with served(application(data, Limits(free_bytes=0, file_bytes=10_000_000))) as url:
        start = time.monotonic()
        with contextlib.suppress(httpx.TransportError):  # closed before the client looked for an answer
            assert httpx.put(f"{url}{FILES}/a.txt", content=endless(), timeout=20).status_code == 413
        assert time.monotonic() - start < 8
        assert patch_response < 10_000_000 + body_writer.LINGER_BYTES + (32 << 20)
        assert httpx.get(url + FILES).json() == []
    assert list((data / "p" / "uploads").iterdir()) == []


@pytest.mark.parametrize("expect", ["", "Expect: 100-continue\r\n"])
def test_put_rejects_declared_size_before_body(data: Path, expect: str) -> None:
    """The answer arrives although the body never does."""
    with served(application(data, Limits(free_bytes=0, file_bytes=1000))) as url:
        address = httpx.URL(url)
        with socket.create_connection((address.host, address.port)) as connection:
            length = f"Content-Length: 10000000000\r\n{expect}\r\n"
            connection.sendall(f"PUT {FILES}/a.txt HTTP/1.1\r\nHost: x\r\n{length}".encode())
            connection.settimeout(5)
            answer = connection.recv(4096)
        assert b" 413 " in answer.split(b"\r\n")[0] and b"application/problem+json" in answer


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
    with httpx.stream("GET", f"{url}{FILES}/a.bin") as answer:
        next(answer.iter_raw(1 << 20))
    time.sleep(0.2)
    before = len(reads)
    time.sleep(0.2)
    assert len(reads) == before < 200


def test_put_concurrent_requests(url: str, data: Path) -> None:
    answers: list[int] = []

    def put(i: int) -> None:
        answers.append(httpx.put(f"{url}{FILES}/{i % 6}.bin", content=DATA[i:], timeout=120).status_code)

    threads = [threading.Thread(target=put, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [201] * 6 + [409] * 6  # each name once
    for i in range(6):
        assert (data / "p" / "files" / f"{i}.bin").read_bytes() in (DATA[i:], DATA[i + 6 :])


# -- a full disk -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT])
def test_upload_full_disk(url: str, data: Path, monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    real = os.pwrite
    room = 3_000_000

    def write(descriptor: int, what: memoryview, at: int) -> int:
        if at >= room:
            raise OSError(error, os.strerror(error))
        return real(descriptor, what[: room - at], at)  # the last one is short, as on a true disk

    where = begin(url, "a.bin", len(DATA))
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", write)
        answers = [
            httpx.patch(where, headers={**BODY, "upload-offset": "0"}, content=DATA),
            httpx.put(f"{url}{FILES}/b.bin", content=DATA),
        ]
        for answer in answers:
            assert answer.status_code == 507
            assert answer.headers["content-type"] == "application/problem+json"
    assert offset(where) == room
    assert httpx.get(url + FILES).json() == []
    outcome = httpx.patch(where, headers={**BODY, "upload-offset": str(room)}, content=DATA[room:])
    assert outcome.status_code == 204  # there is room again
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
    def there() -> bool:
        try:
            return httpx.get(url + FILES).status_code == 200
        except httpx.TransportError:
            return False

    until(there, 30)
    return url


def test_upload_resumes_after_server_kill(data: Path) -> None:
    """Killed in the middle of a PATCH and of a PUT; what is on the disk is a true beginning, and the rest follows.
    The second server has a limit on the size of files, so that the system refuses it a write."""
    process, url = start(data)
    try:
        where = begin(ready(url), "a.bin", len(DATA))
        body = half_open(where, 0, DATA[:4_000_000], len(DATA))
        until(lambda: partial(data).stat().st_size >= 2_000_000)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        body.close()
    finally:
        process.kill()
    received_bytes = partial(data).stat().st_size
    assert 2_000_000 <= received_bytes <= 4_000_000
    assert partial(data).read_bytes() == DATA[:received_bytes]
    assert not (data / "p" / "files").exists()

    process, rival = start(data, file_bytes=4_200_000)
    try:
        where = where.replace(url, ready(rival))
        assert offset(where) == received_bytes
        full = httpx.patch(where, headers={**BODY, "upload-offset": str(received_bytes)}, content=DATA[received_bytes:])
        assert full.status_code == 507
        assert offset(where) == 4_200_000
    finally:
        process.kill()
        process.wait()

    with served(application(data)) as third:
        where = where.replace(rival, third)
        answer = httpx.patch(where, headers={**BODY, "upload-offset": "4200000"}, content=DATA[4_200_000:])
        assert answer.status_code == 204
    assert (data / "p" / "files" / "a.bin").read_bytes() == DATA


def test_upload_resumes_after_kill_before_move(data: Path) -> None:
    """Whatever moment it was, asking for the offset ends the work."""
    for declared_done in (False, True):
        name = f"{declared_done}.txt"
        with served(application(data)) as url:
            where = begin(url, name, 4)
            partial(data).write_bytes(b"0123")
            if declared_done:
                note = partial(data).with_suffix(".json")
                note.write_text(note.read_text().replace('"done":false', '"done":true'))
            assert offset(where) == 4
            assert (data / "p" / "files" / name).read_bytes() == b"0123"
            assert offset(where) == 4
