"""Hostile file names: rejected, or kept below the project's folder. No file outside is opened, created or read."""

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from lumigraph.server.files import safe_open
from lumigraph.server.files.filenames import MAX_PART_BYTES, parts_of, suffix_of
from lumigraph.server.problems import Problem
from tests.server.running_server import application

VALID_NAMES = [
    "a.jpg",
    "photos/left/day 1/IMG_0001.JPG",
    "Grüße (1) [2] & co, 50%.png",
    "%2e%2e%2fa.txt",
    "家.jpg",
    "console.txt",
    "a..b.txt",
    "x" * (MAX_PART_BYTES - 4) + ".txt",
]
INVALID_NAMES = [
    "",
    ".",
    "..",
    "/",
    "../a.jpg",
    "a/../b.jpg",
    "a/./b.jpg",
    "/etc/passwd.txt",
    "a//b.jpg",
    "a/",
    "a\\b.jpg",
    "..\\a.jpg",
    "C:a.jpg",
    "C:\\a.jpg",
    "a.jpg:stream",
    "a\0.jpg",
    "a\n.jpg",
    "a\x7f.jpg",
    "a\x85.jpg",
    "\u202egpj.a.txt",
    "\ufeffa.jpg",
    ".a.jpg",
    "a/.hidden/b.jpg",
    "a./b.jpg",
    "a /b.jpg",
    " a.jpg",
    "a.jpg.",
    "a.jpg ",
    "con.jpg",
    "a/NUL",
    "aux.tar.txt",
    "Com1.txt",
    "LPT¹.txt",
    "a/b/c/d/e.jpg",
    "x" * (MAX_PART_BYTES + 1),
    "é" * (MAX_PART_BYTES // 2 + 1),
    "x" * 100_000,
    "\ud800.txt",
]


@pytest.mark.parametrize("name", VALID_NAMES)
def test_parts_of_accepts_valid_names(name: str) -> None:
    assert "/".join(parts_of(name)) == name
    assert suffix_of(parts_of(name))


@pytest.mark.parametrize("name", INVALID_NAMES)
def test_parts_of_rejects_invalid_names(name: str) -> None:
    with pytest.raises(Problem) as error_info:
        parts_of(name)
    assert error_info.value.status_code == 422


def test_parts_of_normalizes_unicode() -> None:
    assert parts_of("Gru\u0308n.jpg") == parts_of("Gr\u00fcn.jpg") == ("Gr\u00fcn.jpg",)


@pytest.mark.parametrize("name", ["a", "a.exe", "a.svg", "a.html", "a.jpg.exe", "jpg", "a.", "a.jpg%00"])
def test_suffix_of_lists_accepted_suffixes(name: str) -> None:
    with pytest.raises(Problem) as error_info:
        suffix_of((name,))
    assert error_info.value.status_code == 415
    assert "jpg, jpeg, png" in error_info.value.detail


HOSTILE_PARTS = [
    "..",
    ".",
    "",
    "/",
    "\\",
    "%2f",
    "%252f",
    "%2e%2e",
    "%00",
    "\0",
    "C:",
    "link",
    "hole",
    "CON",
    "~",
    "a",
    "é",
    "\u202e",
]
PARTS = st.one_of(st.sampled_from(HOSTILE_PARTS), st.text(max_size=4))
NAMES = st.builds(
    lambda parts, suffix: "/".join(parts) + suffix, st.lists(PARTS, max_size=6), st.sampled_from(["", ".txt"])
)


@pytest.fixture(scope="module")
def trap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestClient, Path, list[str]]]:
    """Create a project with links to an outside folder that holds a canary, and record every opened path."""
    base = tmp_path_factory.mktemp("trap")
    outside = base / "outside"
    (outside / "deep").mkdir(parents=True)
    (outside / "canary.txt").write_text("canary")
    project = base / "data" / "p"
    (project / "files" / "sub").mkdir(parents=True)
    for link in (project / "files" / "link", project / "files" / "sub" / "link"):
        link.symlink_to(outside)
    (project / "files" / "hole.txt").symlink_to(outside / "canary.txt")
    (project / "files" / "new.txt").symlink_to(outside / "new.txt")
    os.mkfifo(project / "files" / "pipe.txt")
    opened_paths: list[str] = []
    real = os.open

    def record_open(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        descriptor = real(path, flags, mode, dir_fd=dir_fd)
        opened_paths.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        return descriptor

    patch = pytest.MonkeyPatch()
    patch.setattr(os, "open", record_open)
    with TestClient(application(base / "data"), raise_server_exceptions=False) as client:
        yield client, base, opened_paths
    patch.undo()


def read_tree(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in sorted(folder.rglob("*"))}


@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(name=NAMES, method=st.sampled_from(["PUT", "GET", "DELETE", "HEAD"]), quote_twice=st.booleans())
@example(name="link/canary.txt", method="GET", quote_twice=False)
@example(name="link/canary.txt", method="PUT", quote_twice=False)
@example(name="link/canary.txt", method="DELETE", quote_twice=False)
@example(name="sub/link/deep/a.txt", method="PUT", quote_twice=False)
@example(name="hole.txt", method="GET", quote_twice=False)
@example(name="hole.txt", method="PUT", quote_twice=False)
@example(name="hole.txt", method="DELETE", quote_twice=False)
@example(name="new.txt", method="PUT", quote_twice=False)
@example(name="pipe.txt", method="GET", quote_twice=False)
@example(name="../../../outside/canary.txt", method="GET", quote_twice=True)
def test_files_path_traversal_is_impossible(
    trap: tuple[TestClient, Path, list[str]], name: str, method: str, quote_twice: bool
) -> None:
    client, base, opened_paths = trap
    opened_paths.clear()
    before = read_tree(base / "outside")
    quoted_name = quote(name, safe="/" if quote_twice else "", errors="surrogatepass")
    path = f"/projects/p/files/{quote(quoted_name, safe='%/') if not quote_twice else quote(quoted_name, safe='')}"
    response = client.request(method, path, params={"overwrite": True}, content=b"text" if method == "PUT" else None)
    assert response.status_code < 500, (name, response.text)
    assert b"canary" not in response.content.replace(b"canary.txt", b"")
    assert read_tree(base / "outside") == before
    project_path = str(base / "data" / "p")
    assert all(item == project_path or item.startswith(project_path + "/") for item in opened_paths), opened_paths
    assert sorted(item.name for item in base.iterdir()) == ["data", "outside"]
    assert {item.name for item in (base / "data" / "p").iterdir()} <= {"files", "uploads"}


@pytest.mark.parametrize("folder_name", ["files", "uploads"])
def test_put_rejects_linked_folder(data: Path, client: TestClient, folder_name: str, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (data / "p" / folder_name).symlink_to(tmp_path / "elsewhere")
    assert client.put("/projects/p/files/a.txt", content=b"text").status_code == 409
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("project", ["..", "%2e%2e", "p%2f..", "q", "p%00", "."])
def test_files_unknown_project(client: TestClient, project: str) -> None:
    for method, path in (("GET", "files"), ("PUT", "files/a.txt"), ("POST", "uploads")):
        response = client.request(method, f"/projects/{project}/{path}", headers={"tus-resumable": "1.0.0"})
        assert response.status_code == 404, (method, path, response.text)


def test_safe_open_rejects_paths(tmp_path: Path) -> None:
    with safe_open.folder(tmp_path) as folder:
        for name in ("", ".", "..", "a/b", "a\0b"):
            with pytest.raises(ValueError, match="not the name"):
                safe_open.file(folder, name, os.O_RDONLY)
            with pytest.raises(ValueError, match="not the name"), safe_open.folder(tmp_path, [name], make=True):
                pass
