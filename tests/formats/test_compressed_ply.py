"""Compressed PLY: agreement with other readers, errors within the quantization, rejection of hostile files."""

from __future__ import annotations

import math
from pathlib import Path

import gsply
import numpy as np
import pytest
import torch
from hypothesis import given

from lumigraph.formats import compressed_ply, ply
from lumigraph.formats.quantization import morton_order
from lumigraph.scene.assets import Points, Splats
from lumigraph.scene.errors import FormatError
from tests.formats import corrupted_files
from tests.formats.test_ply import DATA, SPLAT_FIELDS, make_splats


def as_others_see(path: Path) -> Splats:
    external_scene = gsply.plyread(str(path))
    parts = [
        external_scene.means,
        external_scene.scales,
        external_scene.quats,
        np.clip(np.ravel(external_scene.opacities), -6.93, 6.93),
    ]
    sh = np.asarray(external_scene.sh0)[
        :, None
    ]  # gsply decodes the opacity bytes 0 and 255 slightly nearer to the ends
    if external_scene.shN is not None and external_scene.shN.size:
        sh = np.concatenate([sh, np.reshape(external_scene.shN, (len(sh), -1, 3))], axis=1)
    return Splats(*(torch.from_numpy(np.array(part, np.float32)) for part in (*parts, sh)))


def assert_close(actual: Splats, reference: Splats) -> None:
    for name in SPLAT_FIELDS:
        off = (getattr(actual, name) - getattr(reference, name)).abs()
        # The format does not define the logits of the extreme bytes, nor whether the first SH byte is an extreme.
        assert off.max() <= {"logit_opacities": 0.01, "sh": 1 / 63}.get(name, 1e-5), name
        assert (off > 2e-5).float().mean() < 0.3, name


@pytest.mark.parametrize("name", ["biker", "guitar"])
def test_compressed_ply_reads_external_files(name: str) -> None:
    path = DATA / f"{name}.compressed.ply"
    if not path.exists():
        pytest.skip("the compressed splats of ../shared/data are not here")
    actual = compressed_ply.read(path)
    assert len(actual) == {"biker": 152746, "guitar": 90854}[name]
    through = ply.read(path)  # the same file through the general PLY reader
    assert isinstance(through, Splats) and torch.equal(through.means, actual.means)
    reference = as_others_see(path)
    assert_close(actual, reference)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("count", [1, 256, 20_000])
def test_compressed_ply_roundtrip(tmp_path: Path, degree: int, count: int) -> None:
    splats = make_splats(count, degree)
    compressed_ply.write(splats, tmp_path / "a.compressed.ply")
    back = compressed_ply.read(tmp_path / "a.compressed.ply")
    splats = splats.select(torch.from_numpy(morton_order(splats.means.numpy())))
    assert back.sh_degree == degree and len(back) == count
    for name, values in (("means", splats.means), ("log_scales", splats.log_scales), ("sh", splats.sh[:, 0])):
        decoded = back.sh[:, 0] if name == "sh" else getattr(back, name)
        levels = 255 if name == "sh" else 1023
        for first in range(0, count, compressed_ply.CHUNK_ROWS):
            part = slice(first, first + compressed_ply.CHUNK_ROWS)
            room = values[part].amax(dim=0) - values[part].amin(dim=0)
            assert ((decoded[part] - values[part]).abs() <= room / levels / 2 * 1.01 + 1e-5).all(), name
    assert (torch.sigmoid(back.logit_opacities) - torch.sigmoid(splats.logit_opacities)).abs().max() <= 0.76 / 255
    unit_quats = torch.nn.functional.normalize(splats.quats, dim=1)
    assert (1 - (unit_quats * back.quats).sum(dim=1).abs()).max() < 4e-6
    assert (back.sh[:, 1:] - splats.sh[:, 1:].clamp(-4, 4)).abs().amax().item() <= 1 / 32 if degree else True


@pytest.mark.parametrize("degree", [0, 3])
def test_compressed_ply_matches_gsply(tmp_path: Path, degree: int) -> None:
    path = tmp_path / "a.compressed.ply"
    compressed_ply.write(make_splats(1000, degree), path)
    assert_close(compressed_ply.read(path), as_others_see(path))


def test_compressed_ply_packs_words_by_specification(tmp_path: Path) -> None:
    """Expected words computed by hand, for two gaussians that are the bounds of their chunk."""
    splats = Splats(
        means=torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]]),
        log_scales=torch.tensor([[-3.0, -3.0, -3.0], [-30.0, -1.0, -3.0]]),
        quats=torch.tensor([[1.0, 0, 0, 0], [0, 0, -math.sqrt(0.5), -math.sqrt(0.5)]]),
        logit_opacities=torch.tensor([-100.0, 100.0]),
        sh=torch.zeros(2, 1, 3),
    )
    path = tmp_path / "a.compressed.ply"
    compressed_ply.write(splats, path)
    body = path.read_bytes().split(b"end_header\n")[1]
    bounds, message = np.frombuffer(body[:72], "<f4"), np.frombuffer(body[72:], "<u4").reshape(2, 4)
    assert bounds.tolist() == [0, 0, 0, 1, 2, 3, -20, -3, -3, -3, -1, -3, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
    assert message[0].tolist() == [0, 0b00_1000000000_1000000000_1000000000, 2047 << 21, 0]
    # y is the largest, since z is not larger; the negated quaternion is the same rotation
    assert message[1].tolist() == [0xFFFFFFFF, 0b10_1000000000_1000000000_1111111111, 1023 << 11, 255]


def test_compressed_ply_rejects_unwritable_assets(tmp_path: Path) -> None:
    path = tmp_path / "a.compressed.ply"
    with pytest.raises(FormatError, match=r"no plain points .*\.ply"):
        compressed_ply.write(Points(torch.zeros(1, 3)), path)  # type: ignore[arg-type]
    with pytest.raises(FormatError, match="no gaussians"):
        compressed_ply.write(make_splats(0), path)
    invalid_asset = make_splats(3)
    invalid_asset.sh[1, 1] = math.nan
    with pytest.raises(FormatError, match="1 of 3 gaussians hold NaN"):
        compressed_ply.write(invalid_asset, path)
    assert not list(tmp_path.iterdir())


LIES = {
    "an ordinary PLY": (b"packed_", b"hidden_", "no packed_position"),
    "too few chunks": (b"element chunk 2", b"element chunk 1", "1 chunks of 256 for 300"),
    "a million million": (b"element vertex 300", b"element vertex 1000000000000", "bytes, but"),
    "fewer harmonics": (b"element sh 300", b"element sh 299", "harmonics of 299 gaussians"),
    "a strange degree": (b"property uchar f_rest_8\n", b"", "9, 24 or 45 columns"),
    "no bounds": (b"property float max_x", b"property float other", "chunks without max_x"),
    "no colour": (b"uint packed_color", b"uchar packed_color", "packed_color of 32 bits"),
    "text": (b"binary_little_endian", b"ascii", "in text"),
    "no chunks": (b"element chunk", b"element block", "no 'chunk' element"),
}


@pytest.mark.parametrize("name", LIES)
def test_compressed_ply_rejects_false_headers(tmp_path: Path, name: str) -> None:
    path, (old, new, message) = tmp_path / "a.compressed.ply", LIES[name]
    compressed_ply.write(make_splats(300, 1), path)
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))
    with pytest.raises(FormatError, match=message):
        compressed_ply.read(path)


@pytest.mark.parametrize(("place", "value"), [(3, np.nan), (0, np.inf), (9, 31.0)])
def test_compressed_ply_rejects_invalid_bounds(tmp_path: Path, place: int, value: float) -> None:
    path = tmp_path / "a.compressed.ply"
    compressed_ply.write(make_splats(300, 1), path)
    head, body = path.read_bytes().split(b"end_header\n", 1)
    bounds = np.frombuffer(body[:144], "<f4").copy()
    bounds[18 + place] = value
    path.write_bytes(head + b"end_header\n" + bounds.tobytes() + body[144:])
    with pytest.raises(FormatError, match=r"1 of 2 chunks \(the first is chunk 1\)"):
        ply.read(path)


def test_compressed_ply_survives_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.compressed.ply"
    compressed_ply.write(make_splats(300, 1), path)
    corrupted_files.assert_survives(ply.read, path, corrupted_files.iterate_damage(path.read_bytes()))


@corrupted_files.robustness_settings
@given(changes=corrupted_files.edit_lists)
def test_compressed_ply_survives_edits(tmp_path: Path, changes: corrupted_files.Edits) -> None:
    path = tmp_path / "a.compressed.ply"
    compressed_ply.write(make_splats(20, 1), path)
    path.write_bytes(corrupted_files.apply_edits(path.read_bytes(), changes))
    corrupted_files.read_or_reject(compressed_ply.read, path)
