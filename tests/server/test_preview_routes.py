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
    studio = Studio(tmp_path_factory.mktemp("shown") / "data")
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
    """A project of the sample scene with one run that was evaluated."""
    project = client.projects.create("made up")
    project.submit(wire.SampleJob(views=9, size=(400, 300))).wait()
    run = project.train(seconds=3, downscale=1, settings={"cap": 3000}).wait().state.id
    project.submit(wire.EvaluateJob()).wait()
    return project, run


def at(project: Project, path: str = "") -> str:
    return f"/api/v1/projects/{project.id}{path}"


def picture(answer: httpx.Response) -> Image.Image:
    assert answer.status_code == 200, answer.text
    assert answer.headers["etag"]
    assert answer.headers["content-disposition"].startswith("inline")
    image = Image.open(io.BytesIO(answer.content))
    image.load()
    assert answer.headers["content-type"] == Image.MIME[image.format or ""]
    return image


def test_capture_preview_route(http: httpx.Client, trained_run: tuple[Project, str]) -> None:
    project, _ = trained_run
    preview = CapturePreview.model_validate(http.get(at(project, "/capture")).raise_for_status().json())
    assert len(preview.images) == 9
    assert preview.job is None
    for image in preview.images:
        assert picture(http.get(at(project, f"/capture/{image.thumb}"))).size == (320, 240)
    if preview.points is not None:
        points = http.get(at(project, f"/capture/{preview.points}"))
        assert points.content.startswith(b"ply\n")
        assert points.headers["cache-control"] == "private, no-cache"


def test_run_preview_route(http: httpx.Client, trained_run: tuple[Project, str], tmp_path: Path) -> None:
    project, run = trained_run
    preview = RunPreview.model_validate(http.get(at(project, f"/runs/{run}/shown")).raise_for_status().json())
    assert preview.finished
    (name,) = preview.parts
    scene = http.get(at(project, f"/runs/{run}/shown/{name}"))
    assert scene.headers["content-type"] == "application/octet-stream"
    assert scene.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert len(scene.content) == preview.bytes
    (tmp_path / "scene.spz").write_bytes(scene.content)
    assert len(spz.read(tmp_path / "scene.spz")) == preview.count
    again = http.get(at(project, f"/runs/{run}/shown/{name}"), headers={"if-none-match": scene.headers["etag"]})
    assert (again.status_code, again.headers["cache-control"]) == (304, scene.headers["cache-control"])
    for view in preview.views:
        assert picture(http.get(at(project, f"/runs/{run}/shown/{view.photo}"))).size == (400, 300)
        rendered = http.get(at(project, f"/runs/{run}/shown/{view.render}"))
        assert picture(rendered).size == (400, 300)
        assert "immutable" in rendered.headers["cache-control"]
    part = http.get(at(project, f"/runs/{run}/shown/{name}"), headers={"range": "bytes=0-1"})
    assert (part.status_code, part.content) == (206, b"\x1f\x8b")


def test_evaluation_preview_route(http: httpx.Client, trained_run: tuple[Project, str]) -> None:
    project, run = trained_run
    preview = EvaluationPreview.model_validate(
        http.get(at(project, f"/runs/{run}/shown/evaluation")).raise_for_status().json()
    )
    assert len(preview.views) == preview.total == 2
    for name in (preview.views[0].photo, preview.views[0].render):
        answer = http.get(at(project, f"/runs/{run}/shown/{name}"))
        assert picture(answer).size == (400, 300)
        assert answer.headers["cache-control"] == "private, no-cache"


def test_runs_route(http: httpx.Client, trained_run: tuple[Project, str]) -> None:
    project, run = trained_run
    [item] = [RunSummary.model_validate(entry) for entry in http.get(at(project, "/runs")).raise_for_status().json()]
    preview = http.get(at(project, f"/runs/{run}/shown")).json()
    assert (item.id, item.method, item.step, item.count) == (run, preview["method"], preview["step"], preview["count"])
    assert (item.seconds, item.steps, item.finished) == (3, None, True)
    assert item.trained_seconds is not None
    assert item.trained_seconds >= 3
    assert item.settings["cap"] == 3000
    assert item.psnr == http.get(at(project, f"/runs/{run}/evaluation")).json()["psnr"]
    jobs = {job["id"]: job for job in http.get(at(project, "/jobs")).json()}
    assert item.created == jobs[run]["created"]


def test_usage_route(studio: Studio, http: httpx.Client, trained_run: tuple[Project, str]) -> None:
    project, _ = trained_run
    message = DiskUsage.model_validate(http.get(at(project, "/usage")).raise_for_status().json())
    files = http.get(at(project, "/files")).json()
    assert message.files == len(files)
    assert message.photos == sum(file["name"].endswith((".png", ".jpg")) for file in files)
    assert message.photos >= 9
    inodes = {
        path.stat().st_ino: path.stat().st_size
        for path in (studio.data / "projects" / project.id).rglob("*")
        if path.is_file()
    }
    assert message.bytes == sum(inodes.values())


def test_cover_route_prefers_newest_run(
    studio: Studio, http: httpx.Client, client: Client, trained_run: tuple[Project, str], tmp_path: Path
) -> None:
    outcome, run = trained_run
    render = http.get(at(outcome, f"/runs/{run}/shown")).json()["views"][0]["render"]
    first = http.get(at(outcome, "/cover"))
    assert first.content == http.get(at(outcome, f"/runs/{run}/shown/{render}")).content
    assert first.headers["cache-control"] == "private, no-cache"
    assert http.get(at(outcome, "/cover"), headers={"if-none-match": first.headers["etag"]}).status_code == 304

    project = client.projects.create("growing")
    nothing = http.get(at(project, "/cover"))
    assert (nothing.status_code, nothing.headers["content-type"]) == (404, "application/problem+json")
    project.upload(make_capture(tmp_path / "capture", 10))
    assert picture(http.get(at(project, "/cover"))).format == "PNG"
    folder = studio.data / "projects" / project.id
    shutil.copytree(studio.data / "projects" / outcome.id / "shown", folder / "shown")
    assert picture(http.get(at(project, "/cover"))).format == "JPEG"


def test_preview_routes_of_empty_project(http: httpx.Client, client: Client) -> None:
    project = client.projects.create("empty")
    none = "a" * 16
    for path in (
        "/capture/thumbs/0000.jpg",
        f"/runs/{none}/shown/scene-0-000001.spz",
    ):
        assert http.get(at(project, path)).status_code == 404, path
    for path in ("/capture", f"/runs/{none}/shown", f"/runs/{none}/shown/evaluation"):
        answer = http.get(at(project, path))
        assert (answer.status_code, answer.json()) == (200, None), path
        assert http.get(at(project, path).replace(project.id, none)).status_code == 404, path
    assert http.get(at(project, "/runs")).json() == []
    assert http.get(at(project, "/usage")).json() == {"files": 0, "photos": 0, "bytes": 0}


def test_preview_routes_path_traversal_is_impossible(
    studio: Studio, http: httpx.Client, trained_run: tuple[Project, str]
) -> None:
    project, run = trained_run
    folder = studio.data / "projects" / project.id
    (folder / "runs" / run / "shown" / "link.jpg").symlink_to(studio.data / "token")
    (folder / "shown" / "out").symlink_to(studio.data)
    for root in (at(project, f"/runs/{run}/shown/"), at(project, "/capture/")):
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
            answer = raw(studio, root + name)
            assert answer.status_code in (404, 409, 422), (root, name)
            assert studio.token not in answer.text
    (folder / "runs" / run / "shown" / "link.jpg").unlink()
    (folder / "shown" / "out").unlink()


def raw(studio: Studio, path: str) -> httpx.Response:
    """A request whose path goes out as it stands: a client would take its dots away first."""

    class AsItStands(httpx.HTTPTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            request.extensions["target"] = path.encode()
            return super().handle_request(request)

    headers = {"authorization": f"Bearer {studio.token}"}
    with httpx.Client(transport=AsItStands(), headers=headers) as client:
        return client.get(studio.url)


def test_preview_routes_ignore_damaged_files(
    studio: Studio, http: httpx.Client, client: Client, trained_run: tuple[Project, str]
) -> None:
    outcome, run = trained_run
    project = client.projects.create("damaged")
    source, folder = studio.data / "projects" / outcome.id, studio.data / "projects" / project.id
    shutil.copytree(source / "runs", folder / "runs")
    (folder / "shown").mkdir()
    for cut in (b"", b"{", b"[]", b'{"version": 1}', json.dumps({"version": 2}).encode()):
        (folder / "shown" / "capture.json").write_bytes(cut)
        (folder / "runs" / run / "shown" / "index.json").write_bytes(cut)
        (folder / "runs" / run / "evaluation.json").write_bytes(cut)
        assert http.get(at(project, "/capture")).json() is None
        assert http.get(at(project, f"/runs/{run}/shown")).json() is None
        [item] = http.get(at(project, "/runs")).json()
        assert (item["step"], item["psnr"]) == (None, None)
        assert http.get(at(project, "/cover")).status_code == 404
        (folder / "runs" / run / "config.json").write_bytes(cut)
        assert http.get(at(project, "/runs")).json() == []
        shutil.copy(source / "runs" / run / "config.json", folder / "runs" / run / "config.json")
