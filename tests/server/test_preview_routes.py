"""Preview routes of a real server, after sampling, training and evaluation."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from lumigraph.client import Client, Project
from lumigraph.formats import spz
from lumigraph.wire import resources as wire
from lumigraph.wire.previews import CapturePreview, DiskUsage, EvaluationPreview, RunPreview, RunSummary
from tests.server.studio_process import Studio
from tests.studio.conftest import make_capture


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    studio = Studio(tmp_path_factory.mktemp("previews") / "data")
    yield studio
    studio.stop()


@pytest.fixture(scope="module")
def http(studio: Studio) -> Iterator[httpx.Client]:
    with studio.http() as http:
        yield http


@pytest.fixture(scope="module")
def client(studio: Studio) -> Iterator[Client]:
    with studio.client() as client:
        yield client


@pytest.fixture(scope="module")
def trained_run(client: Client) -> tuple[Project, str]:
    """Create a project with the synthetic scene and one evaluated run."""
    project = client.projects.create("synthetic scene")
    project.submit(wire.SampleJob(views=9, size=(400, 300))).wait()
    run = project.train(seconds=3, downscale=1, settings={"cap": 3000}).wait().state.id
    project.submit(wire.EvaluateJob()).wait()
    return project, run


def url_of(project: Project, path: str = "") -> str:
    return f"/api/v1/projects/{project.id}{path}"


def open_image(response: httpx.Response) -> Image.Image:
    assert response.status_code == 200, response.text
    assert response.headers["etag"]
    assert response.headers["content-disposition"].startswith("inline")
    image = Image.open(io.BytesIO(response.content))
    image.load()
    assert response.headers["content-type"] == Image.MIME[image.format or ""]
    return image


def test_capture_preview_route(http: httpx.Client, trained_run: tuple[Project, str]) -> None:
    project, _ = trained_run
    preview = CapturePreview.model_validate(http.get(url_of(project, "/capture")).raise_for_status().json())
    assert len(preview.images) == 9
    assert preview.job is None
    for image in preview.images:
        assert open_image(http.get(url_of(project, f"/capture/{image.thumb}"))).size == (320, 240)
    if preview.points is not None:
        points = http.get(url_of(project, f"/capture/{preview.points}"))
        assert points.content.startswith(b"ply\n")
        assert points.headers["cache-control"] == "private, no-cache"


def test_run_preview_route(http: httpx.Client, trained_run: tuple[Project, str], tmp_path: Path) -> None:
    project, run = trained_run
    preview = RunPreview.model_validate(http.get(url_of(project, f"/runs/{run}/shown")).raise_for_status().json())
    assert preview.finished
    (name,) = preview.parts
    scene = http.get(url_of(project, f"/runs/{run}/shown/{name}"))
    assert scene.headers["content-type"] == "application/octet-stream"
    assert scene.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert len(scene.content) == preview.bytes
    (tmp_path / "scene.spz").write_bytes(scene.content)
    assert len(spz.read(tmp_path / "scene.spz")) == preview.count
    again = http.get(url_of(project, f"/runs/{run}/shown/{name}"), headers={"if-none-match": scene.headers["etag"]})
    assert (again.status_code, again.headers["cache-control"]) == (304, scene.headers["cache-control"])
    for view in preview.views:
        assert open_image(http.get(url_of(project, f"/runs/{run}/shown/{view.photo}"))).size == (400, 300)
        render_response = http.get(url_of(project, f"/runs/{run}/shown/{view.render}"))
        assert open_image(render_response).size == (400, 300)
        assert "immutable" in render_response.headers["cache-control"]
    part = http.get(url_of(project, f"/runs/{run}/shown/{name}"), headers={"range": "bytes=0-1"})
    assert (part.status_code, part.content) == (206, b"\x1f\x8b")


def test_evaluation_preview_route(http: httpx.Client, trained_run: tuple[Project, str]) -> None:
    project, run = trained_run
    preview = EvaluationPreview.model_validate(
        http.get(url_of(project, f"/runs/{run}/shown/evaluation")).raise_for_status().json()
    )
    assert len(preview.views) == preview.total == 2
    for name in (preview.views[0].photo, preview.views[0].render):
        response = http.get(url_of(project, f"/runs/{run}/shown/{name}"))
        assert open_image(response).size == (400, 300)
        assert response.headers["cache-control"] == "private, no-cache"


def test_runs_route(http: httpx.Client, trained_run: tuple[Project, str]) -> None:
    project, run = trained_run
    entries = http.get(url_of(project, "/runs")).raise_for_status().json()
    [summary] = [RunSummary.model_validate(entry) for entry in entries]
    preview = http.get(url_of(project, f"/runs/{run}/shown")).json()
    assert (summary.id, summary.method, summary.step) == (run, preview["method"], preview["step"])
    assert summary.count == preview["count"]
    assert (summary.seconds, summary.steps, summary.finished) == (3, None, True)
    assert summary.trained_seconds is not None
    assert summary.trained_seconds >= 3
    assert summary.settings["cap"] == 3000
    assert summary.psnr == http.get(url_of(project, f"/runs/{run}/evaluation")).json()["psnr"]
    jobs = {job["id"]: job for job in http.get(url_of(project, "/jobs")).json()}
    assert summary.created == jobs[run]["created"]


def test_usage_route(studio: Studio, http: httpx.Client, trained_run: tuple[Project, str]) -> None:
    project, _ = trained_run
    usage = DiskUsage.model_validate(http.get(url_of(project, "/usage")).raise_for_status().json())
    files = http.get(url_of(project, "/files")).json()
    assert usage.files == len(files)
    assert usage.photos == sum(file["name"].endswith((".png", ".jpg")) for file in files)
    assert usage.photos >= 9
    inodes = {
        path.stat().st_ino: path.stat().st_size
        for path in (studio.data / "projects" / project.id).rglob("*")
        if path.is_file()
    }
    assert usage.bytes == sum(inodes.values())


def test_cover_route_prefers_newest_run(
    studio: Studio, http: httpx.Client, client: Client, trained_run: tuple[Project, str], tmp_path: Path
) -> None:
    evaluated_project, run = trained_run
    render = http.get(url_of(evaluated_project, f"/runs/{run}/shown")).json()["views"][0]["render"]
    first = http.get(url_of(evaluated_project, "/cover"))
    assert first.content == http.get(url_of(evaluated_project, f"/runs/{run}/shown/{render}")).content
    assert first.headers["cache-control"] == "private, no-cache"
    assert (
        http.get(url_of(evaluated_project, "/cover"), headers={"if-none-match": first.headers["etag"]}).status_code
        == 304
    )

    project = client.projects.create("growing")
    missing = http.get(url_of(project, "/cover"))
    assert (missing.status_code, missing.headers["content-type"]) == (404, "application/problem+json")
    project.upload(make_capture(tmp_path / "capture", 10))
    assert open_image(http.get(url_of(project, "/cover"))).format == "PNG"
    folder = studio.data / "projects" / project.id
    shutil.copytree(studio.data / "projects" / evaluated_project.id / "shown", folder / "shown")
    assert open_image(http.get(url_of(project, "/cover"))).format == "JPEG"


def test_preview_routes_of_empty_project(http: httpx.Client, client: Client) -> None:
    project = client.projects.create("empty")
    unknown_id = "a" * 16
    for path in (
        "/capture/thumbs/0000.jpg",
        f"/runs/{unknown_id}/shown/scene-0-000001.spz",
    ):
        assert http.get(url_of(project, path)).status_code == 404, path
    for path in ("/capture", f"/runs/{unknown_id}/shown", f"/runs/{unknown_id}/shown/evaluation"):
        response = http.get(url_of(project, path))
        assert (response.status_code, response.json()) == (200, None), path
        assert http.get(url_of(project, path).replace(project.id, unknown_id)).status_code == 404, path
    assert http.get(url_of(project, "/runs")).json() == []
    assert http.get(url_of(project, "/usage")).json() == {"files": 0, "photos": 0, "bytes": 0}


def test_preview_routes_path_traversal_is_impossible(
    studio: Studio, http: httpx.Client, trained_run: tuple[Project, str]
) -> None:
    project, run = trained_run
    folder = studio.data / "projects" / project.id
    (folder / "runs" / run / "shown" / "link.jpg").symlink_to(studio.data / "token")
    (folder / "shown" / "out").symlink_to(studio.data)
    for root in (url_of(project, f"/runs/{run}/shown/"), url_of(project, "/capture/")):
        for name in (
            "../config.json",
            "..%2fconfig.json",
            "%2e%2e/config.json",
            "%2e%2e%2f%2e%2e%2fconfig.json",
            "..%5cconfig.json",
            "thumbs%2f..%2f..%2ffiles",
            "%2fetc%2fpasswd",
            "/etc/passwd",
            "a%00b",
            ".",
            "%252e%252e%252fconfig.json",
            "link.jpg",
            "out/token",
            "no.jpg",
            "thumbs",
            "a/b/c/d/e",
        ):
            response = get_raw(studio, root + name)
            assert response.status_code in (404, 409, 422), (root, name)
            assert studio.token not in response.text
    (folder / "runs" / run / "shown" / "link.jpg").unlink()
    (folder / "shown" / "out").unlink()


def get_raw(studio: Studio, path: str) -> httpx.Response:
    """Send a GET with an unchanged path; a normal client would resolve its dots."""

    class RawPathTransport(httpx.HTTPTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            request.extensions["target"] = path.encode()
            return super().handle_request(request)

    headers = {"authorization": f"Bearer {studio.token}"}
    with httpx.Client(transport=RawPathTransport(), headers=headers) as client:
        return client.get(studio.url)


def test_preview_routes_ignore_damaged_files(
    studio: Studio, http: httpx.Client, client: Client, trained_run: tuple[Project, str]
) -> None:
    evaluated_project, run = trained_run
    project = client.projects.create("damaged")
    source, folder = studio.data / "projects" / evaluated_project.id, studio.data / "projects" / project.id
    shutil.copytree(source / "runs", folder / "runs")
    (folder / "shown").mkdir()
    for content in (b"", b"{", b"[]", b'{"version": 1}', json.dumps({"version": 2}).encode()):
        (folder / "shown" / "capture.json").write_bytes(content)
        (folder / "runs" / run / "shown" / "index.json").write_bytes(content)
        (folder / "runs" / run / "evaluation.json").write_bytes(content)
        assert http.get(url_of(project, "/capture")).json() is None
        assert http.get(url_of(project, f"/runs/{run}/shown")).json() is None
        [summary] = http.get(url_of(project, "/runs")).json()
        assert (summary["step"], summary["psnr"]) == (None, None)
        assert http.get(url_of(project, "/cover")).status_code == 404
        (folder / "runs" / run / "config.json").write_bytes(content)
        assert http.get(url_of(project, "/runs")).json() == []
        shutil.copy(source / "runs" / run / "config.json", folder / "runs" / run / "config.json")
