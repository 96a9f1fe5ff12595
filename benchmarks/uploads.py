"""Upload benchmark over loopback to a server in its own process: MB/s and peak memory.

The server includes access control. Client, server and disk share the machine. Each row also has the rate of the disk
alone for as many bytes, written and synced.

python -m benchmarks.uploads FOLDER: runs the server and prints its port.
"""

import base64
import http.client
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from lumigraph.server import problems
from lumigraph.server.api import uploads
from lumigraph.server.auth.access import Guard, allowed_hosts
from lumigraph.server.files.quotas import Limits

TOKEN = "of-a-benchmark-only"
BLOCK = os.urandom(1 << 20)
PHOTOS = 500
BLOCKS = 954  # slightly more than 1 GB of 10^9 bytes


def rows(repeats: int = 3) -> Iterator[dict[str, object]]:
    """Upload to a new file `repeats` times: report the best and slowest rate, and the peak memory over all repeats."""
    with tempfile.TemporaryDirectory(prefix="uploads-") as name:
        folder = Path(name)
        (folder / "p").mkdir()
        disk = max(write(folder / "plain") for _ in range(repeats))
        command = [sys.executable, "-m", "benchmarks.uploads", name]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                port = int(server.stdout.readline())
                put(port, "warm.bin", 8)
                for case, send in (("tus, 1 GB", tus), ("PUT, 1 GB", put)):
                    before = peak_rss(server.pid)
                    seconds = []
                    for _ in range(repeats):
                        start = time.perf_counter()
                        send(port, "a.bin", BLOCKS)
                        seconds.append(time.perf_counter() - start)
                        assert (folder / "p" / "files" / "a.bin").stat().st_size == BLOCKS << 20
                        (folder / "p" / "files" / "a.bin").unlink()
                    yield {
                        "case": case,
                        "mb_per_second": round((BLOCKS << 20) / min(seconds) * 1e-6),
                        "slowest_mb_per_second": round((BLOCKS << 20) / max(seconds) * 1e-6),
                        "disk_mb_per_second": round(disk),
                        "peak_rss_mb": round(peak_rss(server.pid), 1),
                        "peak_rss_growth_mb": round(peak_rss(server.pid) - before, 1),
                    }
                for case, send in (("tus, 500 photos of 1 MB", tus), ("PUT, 500 photos of 1 MB", put)):
                    start = time.perf_counter()
                    for i in range(PHOTOS):
                        send(port, f"{case[:3]}/{i:04}.bin", 1)
                    yield {"case": case, "photos_per_second": round(PHOTOS / (time.perf_counter() - start))}
            finally:
                server.terminate()


def write(path: Path) -> float:
    """Measure the disk alone: MB/s of the same number of bytes, written and synced."""
    start = time.perf_counter()
    with path.open("wb", buffering=0) as file:
        for _ in range(BLOCKS):
            file.write(BLOCK)
        os.fsync(file.fileno())
    path.unlink()
    return (BLOCKS << 20) / (time.perf_counter() - start) * 1e-6


def put(port: int, name: str, blocks: int) -> None:
    send_request(port, "PUT", f"/projects/p/files/{name}", {}, blocks, 201)


def tus(port: int, name: str, blocks: int) -> None:
    metadata = f"filename {base64.b64encode(name.encode()).decode()}"
    headers = {"tus-resumable": "1.0.0", "upload-length": str(blocks << 20), "upload-metadata": metadata}
    location = send_request(port, "POST", "/projects/p/uploads", headers, 0, 201)["location"]
    headers = {"tus-resumable": "1.0.0", "upload-offset": "0", "content-type": "application/offset+octet-stream"}
    send_request(port, "PATCH", location, headers, blocks, 204)


def send_request(
    port: int, method: str, path: str, headers: dict[str, str], blocks: int, status: int
) -> http.client.HTTPMessage:
    """Send a request, check the status of the response, and return its headers."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    base_headers = {"authorization": f"Bearer {TOKEN}", "content-length": str(blocks << 20)}
    connection.request(method, path, (BLOCK for _ in range(blocks)), {**base_headers, **headers})
    response = connection.getresponse()
    body = response.read()
    assert response.status == status, body
    connection.close()
    return response.headers


def peak_rss(pid: int) -> float:
    """Return the peak resident memory so far, in MB of 10^6 bytes (Linux)."""
    match = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert match is not None
    return int(match[1]) * 1024e-6


def serve(folder: Path) -> None:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(16)
    port = listener.getsockname()[1]
    print(port, flush=True)
    app = FastAPI()
    problems.install(app)
    app.include_router(uploads.router(lambda project: folder / "p", Limits(free_bytes=0)))
    guard = Guard(app, TOKEN, allowed_hosts("127.0.0.1", port))
    uvicorn.Server(uvicorn.Config(guard, log_level="warning", lifespan="off")).run([listener])


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
