"""The whole server, tested over the network from outside its process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import websockets.sync.client
from plyfile import PlyData
from websockets.exceptions import InvalidStatus

from lumigraph.cli.main import main
from lumigraph.client import AsyncClient, Client, ClientError, JobError
from lumigraph.studio import config_schema, registry
from lumigraph.wire import resources as wire
from lumigraph.wire.events import ArtifactWritten, Progress
from tests.server.studio_process import ROOT, Studio, resident_megabytes
from tests.studio.conftest import make_capture

FOX = ROOT.parent / "shared" / "data" / "fox"


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    studio = Studio(tmp_path_factory.mktemp("studio") / "data", "--hook-host", "127.0.0.1:7999")
    yield studio
    studio.stop()


@pytest.fixture(scope="module")
def client(studio: Studio) -> Iterator[Client]:
    with studio.client() as client:
        yield client


def routes(http: httpx.Client) -> list[tuple[str, str]]:
    """List (method, path) of every documented route, with ids filled in."""
    paths = http.get("/openapi.json").json()["paths"]
    return [
        (method.upper(), re.sub(r"\{\w+\}", "a" * 16, path))
        for path, methods in paths.items()
        for method in methods
        if method in ("get", "post", "put", "patch", "delete", "head", "options")
    ]


SOCKETS = ("/api/v1/events", f"/api/v1/projects/{'a' * 16}/runs/{'a' * 16}/live")


def test_server_routes_need_token(studio: Studio) -> None:
    with studio.http() as http:
        documented_routes = routes(http)
    assert len(documented_routes) > 25
    with httpx.Client(base_url=studio.url) as stranger:
        for method, path in documented_routes:
            response = stranger.request(method, path)
            assert response.status_code == (200 if path == "/healthz" else 401), (method, path)
        assert stranger.get("/openapi.json").status_code == 401


@pytest.mark.parametrize("header", [{"host": "evil.example"}, {"origin": "http://evil.example"}, {"origin": "null"}])
def test_server_routes_reject_foreign_host_or_origin(studio: Studio, header: dict[str, str]) -> None:
    with studio.http() as http:
        for method, path in routes(http):
            assert http.request(method, path, headers=header).status_code == 403, (method, path)
    for path in SOCKETS:
        headers = {"authorization": f"Bearer {studio.token}", **header}
        with (
            pytest.raises(InvalidStatus, match=r"40[03]"),  # this client sends a second Host header
            websockets.sync.client.connect(studio.url.replace("http", "ws") + path, additional_headers=headers),
        ):
            pass


@pytest.mark.parametrize("path", SOCKETS)
def test_server_websockets_need_token(studio: Studio, path: str) -> None:
    with (
        pytest.raises(InvalidStatus, match="403"),
        websockets.sync.client.connect(studio.url.replace("http", "ws") + path),
    ):
        pass


def test_server_matches_openapi_document(studio: Studio) -> None:
    """Schemathesis finds no 5xx and no response that the OpenAPI document does not describe."""
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{studio.url}/openapi.json"]
    options = ["--url", studio.url, "--header", f"Authorization: Bearer {studio.token}", "--checks", checks]
    options += ["--max-examples", "4", "--generation-deterministic", "--no-color", "--request-timeout", "120"]
    process = subprocess.run([*command, *options], capture_output=True, text=True, cwd=studio.data.parent)
    assert process.returncode == 0, process.stdout[-6000:]


def test_server_memory_at_start(studio: Studio) -> None:
    assert resident_megabytes(studio.process.pid) < 150  # 100 MB when idle; earlier tests have used this server


def test_server_job_end_to_end(client: Client, tmp_path: Path) -> None:
    project = client.projects.create("synthetic scene")
    events = list(project.sample(views=3, size=(32, 32)).follow())
    assert any(isinstance(event, Progress) for event in events)
    assert any(isinstance(event, ArtifactWritten) for event in events)
    names = [file["name"] for file in client._request("GET", f"/api/v1/projects/{project.id}/files").json()]
    assert "transforms.json" in names
    assert len(names) >= 4


def test_jobs_name_invalid_settings(studio: Studio, client: Client) -> None:
    project = client.projects.create("wrong")
    for options, field in (
        ({"settings": {"cap": -1}}, "$.settings.cap"),
        ({"settings": {"cap": True}}, "$.settings.cap"),
        ({"settings": {"capp": 1}}, "$.settings.capp"),
        ({"method": "foo"}, "$.method"),
    ):
        with studio.http() as http:
            response = http.post(f"/api/v1/projects/{project.id}/jobs", json={"verb": "train", **options})
        assert response.status_code == 422
        assert response.headers["content-type"] == "application/problem+json"
        assert [error["path"] for error in response.json()["errors"]] == [field]


def test_capabilities_match_registry(client: Client) -> None:
    methods = client._request("GET", "/api/v1/methods").json()
    assert [method["name"] for method in methods] == list(registry.methods())
    assert [method["name"] for method in methods if method["default"]] == [registry.DEFAULT_METHOD]
    for method in methods:
        config = registry.method(method["name"]).Config
        assert [setting["name"] for setting in method["settings"]] == [s.name for s in config_schema.settings(config)]
        assert all(setting["doc"] for setting in method["settings"])
    formats = client._request("GET", "/api/v1/formats").json()
    suffixes = {suffix.removeprefix(".") for suffix in registry.suffixes()}
    assert {format_info["form"] for format_info in formats} == suffixes


def test_jobs_enforce_setting_bounds(client: Client) -> None:
    project = client.projects.create("bounds")
    for method in client._request("GET", "/api/v1/methods").json():
        for setting in method["settings"]:
            top = setting["form"].get("maximum")
            if top is not None:
                options = {"method": method["name"], "settings": {setting["name"]: top + 1}, "seconds": 1.0}
                with pytest.raises(ClientError, match=setting["name"]):
                    project.train(**options)


def test_jobs_idempotency_key(studio: Studio, client: Client) -> None:
    project = client.projects.create("twice")
    with studio.http() as http:
        path, headers = f"/api/v1/projects/{project.id}/jobs", {"idempotency-key": "k"}
        first = http.post(path, json={"verb": "check"}, headers=headers)
        second = http.post(path, json={"verb": "check"}, headers=headers)
        conflict = http.post(path, json={"verb": "check", "steps": 3}, headers=headers)
    assert first.status_code == second.status_code == 202
    assert first.json()["id"] == second.json()["id"]
    assert first.headers["location"] == f"/api/v1/jobs/{first.json()['id']}"
    assert conflict.status_code == 409


def test_scan_idempotency_key(studio: Studio, client: Client) -> None:
    project = client.projects.create("scanned twice")
    path, headers = f"/api/v1/projects/{project.id}/scan", {"idempotency-key": "k"}
    with studio.http() as http:
        first = http.post(path, json={"train": {"steps": 1}}, headers=headers)
        second = http.post(path, json={"train": {"steps": 1}}, headers=headers)
        conflict = http.post(path, json={"train": {"steps": 2}}, headers=headers)
    assert first.status_code == second.status_code == 202
    ids = [job["id"] for job in first.json()]
    assert len(set(ids)) == 5 and [job["id"] for job in second.json()] == ids
    assert len(project.jobs()) == 5
    assert conflict.status_code == 409


def test_jobs_failure_has_reason(client: Client) -> None:
    with pytest.raises(JobError, match="this project has no photos yet; upload some first"):
        client.projects.create("empty").pose().wait()


def test_events_snapshot_then_changes(studio: Studio, client: Client) -> None:
    project = client.projects.create("followed")
    url, headers = studio.url.replace("http", "ws") + "/api/v1/events", {"authorization": f"Bearer {studio.token}"}
    with websockets.sync.client.connect(url, additional_headers=headers, max_size=None) as socket:
        snapshot = wire.Snapshot.model_validate_json(socket.recv())
        assert project.id in {item.id for item in snapshot.projects}
        job = project.submit(wire.NoopJob(steps=20, pause=0.02))
        updates: list[wire.Job] = []
        while not updates or updates[-1].state != "succeeded":
            change = wire.Change.model_validate_json(socket.recv(timeout=120))
            updates += [item for item in change.jobs if item.id == job.id]
    assert [item.seq for item in updates] == sorted(item.seq for item in updates)
    assert [item.done for item in updates] == sorted(item.done for item in updates)
    with websockets.sync.client.connect(f"{url}?since={snapshot.seq}", additional_headers=headers) as socket:
        later_change = wire.Change.model_validate_json(socket.recv())
    assert {item.id for item in later_change.jobs} >= {job.id}
    assert project.id not in {item.id for item in later_change.projects}


def test_jobs_cancel_pause_resume(client: Client) -> None:
    project = client.projects.create("controlled")
    job = project.submit(wire.NoopJob(steps=400, pause=0.01))
    while not job.refresh().done:
        time.sleep(0.02)
    job.pause()
    while job.refresh().state != "queued":
        time.sleep(0.02)
    steps = job.state.done
    job.resume()
    while job.refresh().done <= steps:
        time.sleep(0.02)
    job.cancel()
    with pytest.raises(JobError, match="ended as cancelled"):
        job.wait()
    with pytest.raises(ClientError, match="has cancelled already") as error_info:
        job.resume()
    assert error_info.value.status == 409


def test_projects_bin(studio: Studio, client: Client, tmp_path: Path) -> None:
    project = client.projects.create("to be deleted")
    job = project.submit(wire.NoopJob(steps=10_000, pause=0.01))
    project.delete()
    with pytest.raises(JobError):
        job.wait()
    assert project.id not in {item.id for item in client.projects.list()}
    with pytest.raises(ClientError, match="in the bin"):
        project.submit(wire.NoopJob())
    with pytest.raises(ClientError, match="only a project in the bin"):
        client.projects.create("kept").purge()
    project.restore()
    second_job = project.submit(wire.NoopJob()).wait()
    photo = tmp_path / "notes.txt"
    photo.write_text("private")
    project.upload(photo)
    project.delete()
    project.purge()
    with pytest.raises(ClientError) as error_info:
        project.restore()
    assert error_info.value.status == 404
    for path in (
        studio.data / "projects" / project.id,
        studio.data / "jobs" / job.id,
        studio.data / "jobs" / second_job.id,
    ):
        assert not path.exists()
    assert not list((studio.data / "projects").glob("*.gone"))


def test_jobs_malicious_archive_fails(studio: Studio, client: Client, tmp_path: Path) -> None:
    bomb, slip = tmp_path / "bomb.zip", tmp_path / "slip.zip"
    with (
        zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a.png", "w", force_zip64=True) as file,
    ):
        for _ in range(1200):
            file.write(bytes(1 << 20))
    with zipfile.ZipFile(slip, "w") as archive:
        archive.writestr("../../../../slipped.jpg", b"out")
        archive.writestr("/slipped.jpg", b"out")
    for attack in (bomb, slip):
        project = client.projects.create(attack.stem)
        project.upload(attack)
        with pytest.raises(JobError) as failure:
            project.pose().wait()
        assert attack.name in str(failure.value)
    assert not list(studio.data.parent.rglob("slipped.jpg"))
    stored_bytes = sum(path.stat().st_size for path in (studio.data / "projects").rglob("*") if path.is_file())
    assert stored_bytes < 100 << 20


def test_events_close_after_token_change(tmp_path: Path) -> None:
    studio = Studio(tmp_path / "data")
    url, headers = studio.url.replace("http", "ws") + "/api/v1/events", {"authorization": f"Bearer {studio.token}"}
    with websockets.sync.client.connect(url, additional_headers=headers, max_size=None) as socket:
        socket.recv(timeout=120)
        (studio.data / "token").write_text("another-token-of-enough-letters\n")
        with Client(studio.url, "another-token-of-enough-letters") as client:
            client.projects.create("event that the old token must not receive")
        with pytest.raises(websockets.exceptions.ConnectionClosed) as close_info:
            socket.recv(timeout=120)
    assert close_info.value.rcvd is not None
    assert close_info.value.rcvd.code == 1008
    with pytest.raises(ClientError) as error_info:
        studio.client().projects.list()
    assert error_info.value.status == 401
    studio.stop()
    assert "Traceback" not in studio.log()


def test_server_survives_vanished_files(studio: Studio, client: Client, tmp_path: Path) -> None:
    project = client.projects.create("robbed")
    job = project.submit(wire.SampleJob(views=3, size=(32, 32))).wait()
    shutil.rmtree(studio.data / "projects" / project.id)
    with pytest.raises(JobError, match="photos"):
        project.train(seconds=1).wait()
    for artifact in job.artifacts():
        with pytest.raises(ClientError) as error_info:
            client._request("GET", f"/api/v1/artifacts/{artifact.id}")
        assert error_info.value.status == 404


def test_webhook_is_sent_and_signed(studio: Studio, client: Client) -> None:
    requests: list[tuple[dict[str, str], bytes]] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            requests.append((dict(self.headers), self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(500 if len(requests) == 1 else 204)  # the server retries
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 7999), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    project = client.projects.create("hooked")
    with studio.http() as http:
        path = f"/api/v1/projects/{project.id}/jobs"
        job = http.post(path, json={"verb": "check"}, params={"hook": "http://127.0.0.1:7999/done"}).json()
        rejection = http.post(path, json={"verb": "check"}, params={"hook": "http://169.254.169.254/latest"})
    assert rejection.status_code == 422
    end = time.monotonic() + 30
    while len(requests) < 2 and time.monotonic() < end:
        time.sleep(0.05)
    server.shutdown()
    headers, body = requests[1]
    assert json.loads(body)["id"] == job["id"]
    import hashlib
    import hmac

    expected = hmac.new(studio.token.encode(), body, hashlib.sha256).hexdigest()
    assert {key.lower(): value for key, value in headers.items()}["x-lumigraph-signature"] == f"sha256={expected}"


def test_async_client(studio: Studio) -> None:
    async def run_job() -> list[str]:
        async with AsyncClient(studio.url, studio.token) as client:
            project = await client.projects.create("async")
            job = await project.submit(wire.NoopJob(steps=5))
            kinds = [event.kind async for event in job.follow()]
            return [job.state.state, *kinds]

    state, *kinds = asyncio.run(run_job())
    assert state == "succeeded"
    assert "snapshot" in kinds


def test_server_data_folder_is_locked(studio: Studio) -> None:
    command = [sys.executable, "-m", "lumigraph", "up", "--data", str(studio.data), "--port", "0"]
    process = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert process.returncode == 1
    assert process.stderr.strip().endswith(f"is in use by the server at {studio.url}")


def test_server_reports_used_port(studio: Studio, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lumigraph", "up", "--data", str(tmp_path), "--port", str(studio.port)]
    process = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert (process.returncode, "choose another --port" in process.stderr) == (1, True)


def test_metrics_route(studio: Studio) -> None:
    with studio.http() as http:
        text = http.get("/metrics").text
    assert re.search(r'lumigraph_jobs\{state="succeeded",verb="check"\} \d', text)
    assert "lumigraph_http_seconds_bucket" in text


def test_server_recovers_from_full_disk(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(small)], capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        studio = Studio(small / "data")
        with studio.client(retry_timeout_s=5) as client:
            project = client.projects.create("p")
            job = project.submit(wire.NoopJob(steps=200, pause=0.02, save_every=5))
            while not job.refresh().done:
                time.sleep(0.02)
            ballast = small / "ballast"
            with pytest.raises(OSError, match="No space left"), ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(b"0" * 4096)
            with pytest.raises(ClientError) as error_info:
                for _ in range(200):
                    client.projects.create("more" * 40)
            assert error_info.value.status == 507
            assert client._request("GET", "/healthz").json()["status"] == "ok"
            ballast.unlink()
            assert job.wait().state.result == {"sum": 20100}
            client.projects.create("space again")
        assert studio.stop() == -signal.SIGTERM  # uvicorn re-raises the signal after a clean shutdown
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_live_view_of_run(studio: Studio, client: Client, tmp_path: Path) -> None:
    from lumigraph.wire.live import unpack_frame

    project = client.projects.create("live")
    project.upload(make_capture(tmp_path / "capture", 10))
    run = project.train(seconds=1).wait().state.result["run"]  # type: ignore[index, call-overload]
    url = f"{studio.url.replace('http', 'ws')}/api/v1/projects/{project.id}/runs/{run}/live"
    headers = {"authorization": f"Bearer {studio.token}"}
    with websockets.sync.client.connect(url, additional_headers=headers, max_size=None) as socket:
        hello = json.loads(socket.recv(timeout=120))
        assert (hello["kind"], hello["method"]) == ("hello", "splat")
        while not isinstance(message := socket.recv(timeout=120), bytes):
            pass
        header, jpeg = unpack_frame(message)
        assert jpeg[:2] == b"\xff\xd8"
        assert header.width >= 16


def test_cli_remote_scan(studio: Studio, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capture, out = make_capture(tmp_path / "capture", 10), tmp_path / "out"
    address = f"{studio.url}/?token={studio.token}"
    command = ["scan", str(capture), "-o", str(out), "--seconds", "1", "--set", "cap=300", "--remote", address, "-q"]
    assert main(command) == 0
    assert "PSNR" in capsys.readouterr().out
    assert len(PlyData.read(out / "scene.ply")["vertex"]) <= 300
    (out / "scene.ply").unlink()
    assert main(command) == 0  # no job runs again, and the missing file is downloaded
    assert (out / "scene.ply").exists()
    assert main([*command[:-2], studio.url]) == 1
    assert "expects the address that `lumigraph up` prints" in capsys.readouterr().err


def scan_with_kills(studio: Studio, photos: Path, out: Path, seconds: float) -> str:
    """Run examples/remote-scan; kill the worker of each long job once, and the server once for each job."""
    script = ROOT / "examples" / "remote-scan" / "remote_scan.py"
    command = [sys.executable, str(script), studio.url, studio.token, str(photos), str(out), str(seconds)]
    workers, servers = set[str](), set[str]()
    with (out.parent / "output.txt").open("w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT)
        while process.poll() is None:
            time.sleep(2.5)
            for worker, job in studio.workers():
                with contextlib.suppress(psutil.Error):
                    if job not in workers:
                        worker.kill()
                        workers.add(job)
                    elif job not in servers:
                        studio.kill()
                        studio.start()
                        servers.add(job)
        output.seek(0)
        text = output.read()
    assert process.returncode == 0, text[-3000:] + studio.log()[-3000:]
    assert len(workers) >= 2, text  # at least one for pose estimation and one for training
    assert len(servers) >= 2, text
    return text


def check_scan(out: Path, text: str, min_psnr: float) -> None:
    match = re.search(r"held-out views: ([\d.]+) dB", text)
    assert match, text[-2000:]
    assert float(match.group(1)) > min_psnr
    assert len(PlyData.read(out / "scene.ply")["vertex"]) > 100
    assert {"scene.ply", "rgb.mp4", "report.html", "evaluation.json"} <= {path.name for path in out.iterdir()}


def test_scan_survives_kills(tmp_path: Path) -> None:
    if not FOX.exists():
        pytest.skip("the fox capture is missing")
    photos = tmp_path / "photos"
    photos.mkdir()
    for path in sorted((FOX / "images").glob("*.jpg"))[::3]:
        shutil.copy(path, photos)
    studio = Studio(tmp_path / "data")
    try:
        check_scan(tmp_path / "out", scan_with_kills(studio, photos, tmp_path / "out", seconds=8), min_psnr=18)
    finally:
        studio.stop()
