"""SOG: pixel layout, agreement with another reader, early rejection of hostile zips and images."""

from __future__ import annotations

import io
import json
import math
import struct
import zipfile
from pathlib import Path
from typing import Any

import gsply.sog_reader
import numpy as np
import pytest
import torch
from hypothesis import given
from PIL import Image

from lumigraph.formats import sog
from lumigraph.formats.codebook import find_nearest_code, learn_codebook, learn_palette
from lumigraph.formats.quantization import morton_order
from lumigraph.scene.assets import Points, Splats
from lumigraph.scene.errors import FormatError
from tests.formats import corrupted_files
from tests.formats.test_ply import DATA, make_splats


def in_order(splats: Splats) -> Splats:
    return splats.select(torch.from_numpy(morton_order(splats.means.numpy())))


def write_zip(path: Path, entries: dict[str, bytes], kind: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", kind) as bundle:
        for name, data in entries.items():
            bundle.writestr(name, data)
    return path


def entries_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as bundle:
        return {name: bundle.read(name) for name in bundle.namelist()}


def webp(pixels: np.ndarray[Any, Any], **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "WEBP", **{"lossless": True, "exact": True, **options})
    return stream.getvalue()


# --- round trip -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("count", [1, 1500])
def test_sog_roundtrip(tmp_path: Path, degree: int, count: int) -> None:
    splats = make_splats(count, degree)
    sog.write(splats, tmp_path / "a.sog")
    back, splats = sog.read(tmp_path / "a.sog"), in_order(splats)
    assert len(back) == count and back.sh_degree == degree
    logs, log = (torch.sign(x) * x.abs().log1p() for x in (back.means.double(), splats.means.double()))
    assert (logs - log).abs().max() <= (log.max() - log.min()) / 65535 / 2 * 1.01 + 1e-6
    assert (torch.sigmoid(back.logit_opacities) - torch.sigmoid(splats.logit_opacities)).abs().max() <= 0.76 / 255
    unit_quats = torch.nn.functional.normalize(splats.quats, dim=1)
    assert (1 - (unit_quats * back.quats).sum(dim=1).abs()).max() < 3e-5
    for actual, reference in ((back.log_scales, splats.log_scales), (back.sh[:, 0], splats.sh[:, 0])):
        assert (actual - reference).pow(2).mean().sqrt() < 0.01 and (actual - reference).abs().max() < 0.05
    if degree:  # a palette fits noise badly, but better than one mean
        assert (back.sh[:, 1:] - splats.sh[:, 1:]).pow(2).mean() < 0.7 * splats.sh[:, 1:].var()


def test_sog_is_reproducible(tmp_path: Path) -> None:
    for name in "ab":
        sog.write(make_splats(2000, 1), tmp_path / f"{name}.sog")
    assert (tmp_path / "a.sog").read_bytes() == (tmp_path / "b.sog").read_bytes()


def test_sog_reads_folder(tmp_path: Path) -> None:
    sog.write(make_splats(100, 2), tmp_path / "a.sog")
    for name, data in entries_of(tmp_path / "a.sog").items():
        (tmp_path / name).write_bytes(data)
    ways = [sog.read(tmp_path / "a.sog"), sog.read(tmp_path), sog.read(tmp_path / "meta.json")]
    assert all(torch.equal(way.sh, ways[0].sh) and torch.equal(way.means, ways[0].means) for way in ways)


def test_sog_scene_without_extent(tmp_path: Path) -> None:
    single_splat = make_splats(1, 1)
    many = single_splat.select(torch.zeros(300, dtype=torch.int64))
    sog.write(many, tmp_path / "a.sog")
    back = sog.read(tmp_path / "a.sog")
    assert torch.allclose(back.means, many.means, atol=1e-5) and torch.allclose(back.sh, many.sh, atol=1e-5)


# --- independent judges -----------------------------------------------------------------------------------------------


def as_others_see(path: Path, monkeypatch: pytest.MonkeyPatch) -> Splats:
    """Read with gsply, with Pillow as its WebP decoder; all SOG logic is gsply's."""

    def unpack(data: bytes) -> tuple[np.ndarray[Any, Any], int, int]:
        with Image.open(io.BytesIO(data)) as picture:
            return np.asarray(picture.convert("RGBA")).reshape(-1), picture.width, picture.height

    monkeypatch.setattr(gsply.sog_reader, "_load_webp_image", unpack)
    external_scene = gsply.sog_reader.sogread(path)
    sh = np.asarray(external_scene.sh0)[:, None]
    if external_scene.shN is not None and external_scene.shN.size:
        sh = np.concatenate([sh, np.reshape(external_scene.shN, (len(sh), -1, 3))], axis=1)
    parts = (external_scene.means, external_scene.scales, external_scene.quats, np.ravel(external_scene.opacities), sh)
    return Splats(*(torch.from_numpy(np.array(part, np.float32)) for part in parts))


def assert_close(actual: Splats, reference: Splats) -> None:
    assert torch.allclose(actual.means, reference.means, rtol=1e-4, atol=1e-4)
    assert torch.allclose(actual.log_scales, reference.log_scales, atol=1e-5)
    assert torch.allclose(actual.quats, reference.quats, atol=1e-5)
    assert torch.allclose(
        torch.sigmoid(actual.logit_opacities), torch.sigmoid(reference.logit_opacities), atol=1.01 / 1020
    )
    assert torch.allclose(actual.sh, reference.sh, atol=1e-5)


@pytest.mark.parametrize("degree", [0, 1, 3])
def test_sog_matches_gsply(tmp_path: Path, degree: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sog.write(make_splats(700, degree), tmp_path / "a.sog")
    assert_close(sog.read(tmp_path / "a.sog"), as_others_see(tmp_path / "a.sog", monkeypatch))


def test_sog_reads_external_files(monkeypatch: pytest.MonkeyPatch) -> None:
    path = DATA / "sog_v2" / "meta.json"
    if not path.exists():
        pytest.skip("the SOG of ../shared/data is not here")
    splats = sog.read(path)  # version 1, despite the name of the folder
    assert len(splats) == 307128 and splats.sh_degree == 0
    assert_close(splats, as_others_see(path, monkeypatch))


def test_sog_pixel_layout(tmp_path: Path) -> None:
    """Expected pixels computed by hand, for two gaussians at the ends of all ranges."""
    splats = Splats(
        means=torch.tensor([[0.0, 0.0, 0.0], [math.e - 1, 1 - math.e, 0.0]]),
        log_scales=torch.tensor([[-3.0, -3.0, -3.0], [-1.0, -1.0, -1.0]]),
        quats=torch.tensor([[2.0, 0, 0, 0], [0, 0, -math.sqrt(0.5), -math.sqrt(0.5)]]),
        logit_opacities=torch.tensor([-100.0, 100.0]),
        sh=torch.tensor([[[0.5, 0.5, 0.5]], [[-0.5, -0.5, -0.5]]]),
    )
    sog.write(splats, tmp_path / "a.sog")
    entries = entries_of(tmp_path / "a.sog")
    meta = json.loads(entries["meta.json"])
    assert meta["version"] == 2 and meta["count"] == 2 and "shN" not in meta
    assert meta["means"]["mins"] == pytest.approx([0, -1, 0]) and meta["means"]["maxs"] == pytest.approx([1, 0, 0])
    with Image.open(io.BytesIO(entries["means_u.webp"])) as picture:
        assert picture.size == (4, 4) and np.asarray(picture)[0, :2].tolist() in (
            [[0, 255, 0], [255, 0, 0]],
            [[255, 0, 0], [0, 255, 0]],
        )
        first = 0 if np.asarray(picture)[0, 0, 0] == 0 else 1  # position of the first gaussian in the file
    with Image.open(io.BytesIO(entries["quats.webp"])) as picture:
        turns = np.asarray(picture)[0, :2]
    assert turns[first].tolist() == [128, 128, 128, 252] and turns[1 - first].tolist() == [128, 128, 255, 254]
    with Image.open(io.BytesIO(entries["sh0.webp"])) as picture:
        colours = np.asarray(picture)[0, :2]
    assert colours[:, 3][[first, 1 - first]].tolist() == [0, 255]
    codes = meta["sh0"]["codebook"]
    assert [codes[colours[first, 0]], codes[colours[1 - first, 0]]] == pytest.approx([0.5, -0.5])


# --- codebook and palette ---------------------------------------------------------------------------------------------


def test_learn_codebook_error_near_optimum() -> None:
    values = np.random.default_rng(0).normal(size=30_000).astype(np.float32)
    codes = learn_codebook(values)
    off = values - codes[find_nearest_code(codes, values)]
    assert (np.abs(off) <= np.abs(values[:, None][:500] - codes).min(axis=1).max() + 1).all()
    # Panter and Dite 1951: the mean squared error of 256 levels of a normal distribution is at least sqrt(3) pi / 2 /
    # 256^2
    assert (off**2).mean() < 1.25 * math.sqrt(3) * math.pi / 2 / 256**2
    exact = learn_codebook(np.repeat(np.float32([1, 5, -2]), 100))
    assert set(exact[find_nearest_code(exact, np.float32([1, 5, -2]))].tolist()) == {1, 5, -2}


def test_learn_palette_finds_clusters() -> None:
    draw = torch.Generator().manual_seed(0)
    centres = torch.randn(300, 9, generator=draw) * 10
    vectors = centres[torch.randint(0, 300, (8_000,), generator=draw)] + 0.01 * torch.randn(8_000, 9, generator=draw)
    for size in (64, 1024, 2048):
        entries, labels = learn_palette(vectors, size, 6)
        assert len(entries) <= size and labels.min() >= 0 and labels.max() < len(entries)
        off = (entries[labels] - vectors).pow(2).mean()
        assert off < (100 if size == 64 else 5)
        plain = torch.cdist(vectors[:500], entries).min(dim=1).values.pow(2).mean() / 9
        assert off < 1.5 * plain + 0.5  # the tree is almost as accurate as an exhaustive search


# --- hostile files ----------------------------------------------------------------------------------------------------


@pytest.fixture
def valid_entries(tmp_path: Path) -> dict[str, bytes]:
    sog.write(make_splats(100, 1), tmp_path / "good.sog")
    return entries_of(tmp_path / "good.sog")


def with_meta(valid_entries: dict[str, bytes], **changes: Any) -> dict[str, bytes]:
    """`means__mins=[...]` changes mins of means."""
    meta = json.loads(valid_entries["meta.json"])
    for key, value in changes.items():
        *parts, last = key.split("__")
        place = meta
        for part in parts:
            place = place[part]
        place[last] = value
    return {**valid_entries, "meta.json": json.dumps(meta).encode()}


LIES: dict[str, tuple[dict[str, Any], str]] = {
    "a later version": ({"version": 3}, "the version 3"),
    "no count": ({"count": "many"}, "no count"),
    "none": ({"count": 0}, "no count"),
    "true": ({"count": True}, "no count"),
    "too many": ({"count": 10**8}, "which no SOG of"),
    "more than pixels": ({"count": 10_000}, "pixels for 10000 gaussians"),
    "NaN": ({"means__mins": [math.nan, 0, 0]}, "too large or not a number"),
    "huge": ({"means__maxs": [10**400, 0, 0]}, "too large or not a number"),
    "far": ({"means__maxs": [100, 0, 0]}, "positions beyond"),
    "a short codebook": ({"scales__codebook": [0.0] * 255}, "no 256 numbers"),
    "a wide one": ({"scales__codebook": [31.0] * 256}, "scales above"),
    "words": ({"sh0__codebook": ["a"] * 256}, "no 256 numbers"),
    "no table": ({"sh0": 7}, "no 'sh0'"),
    "no files": ({"quats__files": []}, "too few 'files'"),
    "up and away": ({"quats__files": ["../../etc/passwd"]}, "is not in the SOG"),
    "absolute": ({"quats__files": ["/etc/passwd"]}, "is not in the SOG"),
    "absent": ({"quats__files": ["other.webp"]}, "holds no other.webp"),
    "bands": ({"shN__bands": 4}, "no 'bands' from 1 to 3"),
    "other bands": ({"shN__bands": 3}, "for a palette 960 wide"),
}


@pytest.mark.parametrize("name", LIES)
def test_sog_rejects_false_meta(tmp_path: Path, valid_entries: dict[str, bytes], name: str) -> None:
    changes, message = LIES[name]
    with pytest.raises(FormatError, match=message) as error_info:
        sog.read(write_zip(tmp_path / "bad.sog", with_meta(valid_entries, **changes)))
    assert "bad.sog" in str(error_info.value) and "\n" not in str(error_info.value)


def test_sog_restores_missing_first_code(tmp_path: Path, valid_entries: dict[str, bytes]) -> None:
    codes = json.loads(valid_entries["meta.json"])["scales"]["codebook"]
    back = sog.read(write_zip(tmp_path / "a.sog", with_meta(valid_entries, scales__codebook=[None, *codes[1:]])))
    assert back.log_scales.min() < codes[1]


def test_sog_rejects_hostile_zips(tmp_path: Path, valid_entries: dict[str, bytes]) -> None:
    """A zip that decompresses to gigabytes, images that announce them, a zip in a zip, and a file that is not a zip."""
    bad = tmp_path / "bad.sog"
    huge = b"RIFF\0\0\0\0WEBPVP8L\0\0\0\0/" + struct.pack("<I", 0x3FFE | 0x3FFE << 14) + bytes(20)
    still = webp(np.random.default_rng(0).integers(0, 255, (12, 12, 4), np.uint8))
    pictures = {
        "the limit for this SOG": bytes(50_000_000),
        "16383 x 16383 pixels": huge,
        "4 x 4 pixels": webp(np.zeros((4, 4, 4), np.uint8)),
        "lossy": webp(np.zeros((12, 12, 3), np.uint8), lossless=False),
        "not a WebP": b"\x89PNG\r\n\x1a\n" + bytes(40),
        "cannot be decoded": still[:-20],
    }
    for message, data in pictures.items():
        with pytest.raises(FormatError, match=message):
            sog.read(write_zip(bad, {**valid_entries, "quats.webp": data}, zipfile.ZIP_DEFLATED))
    with pytest.raises(FormatError, match="compressed by a method"):
        sog.read(write_zip(bad, valid_entries, zipfile.ZIP_LZMA))
    with pytest.raises(FormatError, match=r"holds no meta\.json"):
        sog.read(write_zip(bad, {"good.sog": write_zip(tmp_path / "inner.sog", valid_entries).read_bytes()}))
    for meta in (b"[" * 100_000, b"[]", b"{", b"\xff", b"{}" + b" " * (1 << 21), b"null"):
        with pytest.raises(FormatError):
            sog.read(write_zip(bad, {**valid_entries, "meta.json": meta}, zipfile.ZIP_DEFLATED))
    moving = io.BytesIO()
    frames = [Image.new("RGBA", (12, 12), colour) for colour in ("red", "blue")]
    frames[0].save(moving, "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    with pytest.raises(FormatError, match="animated"):
        sog.read(write_zip(bad, {**valid_entries, "quats.webp": moving.getvalue()}))
    bad.write_bytes(b"ply\n")
    with pytest.raises(FormatError, match="cannot be read as the zip"):
        sog.read(bad)


def test_sog_checks_count_before_allocation(tmp_path: Path, valid_entries: dict[str, bytes]) -> None:
    lies = [
        write_zip(
            tmp_path / "bad.sog", {**valid_entries, "quats.webp": bytes(200_000_000)}, zipfile.ZIP_DEFLATED
        ).read_bytes(),
        write_zip(tmp_path / "bad.sog", with_meta(valid_entries, count=200_000_000)).read_bytes(),
        write_zip(tmp_path / "bad.sog", with_meta(valid_entries, count=60_000)).read_bytes(),
    ]
    corrupted_files.assert_survives(sog.read, tmp_path / "bad.sog", lies)


def test_sog_survives_damage(tmp_path: Path, valid_entries: dict[str, bytes]) -> None:
    path = write_zip(tmp_path / "a.sog", valid_entries)
    corrupted_files.assert_survives(sog.read, path, corrupted_files.iterate_damage(path.read_bytes()))
    whole = json.loads(valid_entries["meta.json"])
    texts = [json.dumps(whole, indent=0).replace(old, new) for old, new in (("0.", "-"), ("[", "{"), ("1", "null"))]
    corrupted_files.assert_survives(
        sog.read, path, [write_zip(path, {**valid_entries, "meta.json": t.encode()}).read_bytes() for t in texts]
    )


@corrupted_files.robustness_settings
@given(changes=corrupted_files.edit_lists)
def test_sog_survives_image_edits(tmp_path_factory: pytest.TempPathFactory, changes: corrupted_files.Edits) -> None:
    folder = tmp_path_factory.getbasetemp() / "edited"
    if not folder.exists():
        folder.mkdir()
        sog.write(make_splats(20, 1), folder / "a.sog")
    entries = entries_of(folder / "a.sog")
    for name in ("means_l.webp", "sh0.webp", "shN_labels.webp"):
        edited_entries = {**entries, name: corrupted_files.apply_edits(entries[name], changes)}
        corrupted_files.read_or_reject(sog.read, write_zip(folder / "b.sog", edited_entries))


def test_sog_rejects_unwritable_assets(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no plain points"):
        sog.write(Points(torch.zeros(1, 3)), tmp_path / "a.sog")  # type: ignore[arg-type]
    with pytest.raises(FormatError, match="holds 1 to"):
        sog.write(make_splats(0), tmp_path / "a.sog")
    nan_splats = make_splats(3)
    nan_splats.quats[1, 1] = math.inf
    with pytest.raises(FormatError, match="1 of 3 gaussians hold NaN"):
        sog.write(nan_splats, tmp_path / "a.sog")
    assert not list(tmp_path.iterdir())
