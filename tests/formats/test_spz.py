"""SPZ: byte layout, agreement with another reader within the quantization, rejection of hostile files."""

from __future__ import annotations

import gzip
import math
import struct
from pathlib import Path

import gsply
import numpy as np
import pytest
import torch
import zstandard
from hypothesis import given

from lumigraph.formats import ply, spz
from lumigraph.scene.assets import Points, Splats
from lumigraph.scene.errors import FormatError
from lumigraph.scene.poses import matrix_from_quaternion
from tests.formats import corrupted_files
from tests.formats.test_ply import DATA, make_splats


def covariances(log_scales: torch.Tensor, quats: torch.Tensor) -> torch.Tensor:
    """(N, 3, 3) covariance of each gaussian relative to its largest axis: the visible effect of both attributes."""
    scales = (log_scales - log_scales.max(dim=1, keepdim=True).values).exp()
    rotations = matrix_from_quaternion(torch.nn.functional.normalize(quats, dim=1)) * scales[:, None]
    return rotations @ rotations.transpose(1, 2)


def assert_same(back: Splats, splats: Splats) -> None:
    assert back.sh_degree == splats.sh_degree
    assert (back.means - splats.means).abs().max() <= 2.0**-16 / 2 * 1.01 + 1e-6
    assert (back.log_scales - splats.log_scales).abs().max() <= 1 / 32 + 1e-5
    off = torch.sigmoid(back.logit_opacities) - torch.sigmoid(splats.logit_opacities)
    assert off.abs().max() <= 0.5 / 255 + 1e-5
    assert (back.sh[:, 0] - splats.sh[:, 0].clamp(-1 / 0.3, 1 / 0.3)).abs().max() <= 0.5 / 255 / 0.15 + 1e-5
    for coefficients, half in ((slice(1, 4), 4), (slice(4, 16), 8)):
        off = back.sh[:, coefficients] - splats.sh[:, coefficients].clamp(-1, 127 / 128)
        assert off.numel() == 0 or off.abs().max() <= half / 128 + 1e-5
    apart = covariances(back.log_scales, back.quats) - covariances(back.log_scales, splats.quats)
    assert apart.abs().max() < 0.03


ALL = [spz.Options(), spz.Options(version=3), spz.Options(version=4)]


@pytest.mark.parametrize("options", ALL)
@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_spz_roundtrip(tmp_path: Path, degree: int, options: spz.Options) -> None:
    splats = make_splats(500, degree)
    spz.write(splats, tmp_path / "a.spz", options)
    back = spz.read(tmp_path / "a.spz")
    assert_same(back, splats)
    if options.version > 2:
        rotations = torch.nn.functional.normalize(splats.quats, dim=1)
        off = rotations - back.quats * torch.sign((rotations * back.quats).sum(dim=1, keepdim=True))
        assert (
            off[:, :].abs().max() < 3 * math.sqrt(0.5) / 511 / 2 * 1.01
        )  # the largest component has the errors of three


@pytest.mark.parametrize("options", ALL)
@pytest.mark.parametrize("degree", [0, 3])
def test_spz_matches_gsply(tmp_path: Path, degree: int, options: spz.Options) -> None:
    splats = make_splats(200, degree)
    spz.write(splats, tmp_path / "a.spz", options)
    external_scene = gsply.read_spz(str(tmp_path / "a.spz"))
    parts = [
        np.asarray(part, np.float32)
        for part in (external_scene.means, external_scene.scales, external_scene.quats, external_scene.opacities)
    ]
    means, scales, quats, logits = (torch.from_numpy(np.ascontiguousarray(part)) for part in parts)
    sh = np.asarray(external_scene.sh0, np.float32)[:, None]
    if degree:
        sh = np.concatenate([sh, np.asarray(external_scene.shN, np.float32)], axis=1)
    assert_same(Splats(means, scales, quats, logits.reshape(-1), torch.from_numpy(sh)), splats)


def test_spz_byte_layout(tmp_path: Path) -> None:
    """Expected bytes computed by hand from the format description, for two gaussians."""
    sh = torch.zeros(2, 4, 3)
    sh[0, 0] = torch.tensor([0.0, 1.0, -4.0])  # the last is darker than the format allows
    sh[1, 1] = torch.tensor([0.5, -0.5, 2.0])
    splats = Splats(
        means=torch.tensor([[1.0, -0.5, 0.0], [2.0, 100.0, -100.0]]),
        log_scales=torch.tensor([[-10.0, 0.0, 5.9375], [-20.0, 20.0, -1.0]]),
        quats=torch.tensor([[2.0, 0.0, 0.0, 0.0], [-math.sqrt(3) / 2, -0.5, 0.0, 0.0]]),
        logit_opacities=torch.tensor([0.0, 100.0]),
        sh=sh,
    )
    spz.write(splats, tmp_path / "a.spz")
    data = gzip.decompress((tmp_path / "a.spz").read_bytes())
    assert data[:4] == b"NGSP"
    assert struct.unpack("<IIBBBB", data[4:16]) == (2, 2, 1, 16, 0, 0)
    body = data[16:]
    assert body[:9] == bytes([0, 0, 1, 0, 0x80, 0xFF, 0, 0, 0])
    assert body[18:20] == bytes([128, 255])
    assert body[20:26] == bytes([128, 166, 0, 128, 128, 128])
    assert body[26:32] == bytes([0, 160, 255, 0, 255, 144])
    assert body[32:38] == bytes([128, 128, 128, 191, 128, 128])
    assert body[38:47] == bytes([128] * 9)
    assert body[47:] == bytes([192, 64, 255, *[128] * 6])


def test_spz_outliers_keep_precision(tmp_path: Path) -> None:
    splats = make_splats(3000, 0)
    splats.means[0, 0] = 1e6
    spz.write(splats, tmp_path / "a.spz")
    back = spz.read(tmp_path / "a.spz")
    assert (back.means - splats.means)[1:].abs().max() <= 2.0**-12
    assert back.means[0, 0] > 2000  # clipped, but on the correct side
    everywhere = Splats(
        splats.means * 1e5, *[getattr(splats, n) for n in ("log_scales", "quats", "logit_opacities")], splats.sh
    )
    spz.write(everywhere, tmp_path / "b.spz")
    assert (spz.read(tmp_path / "b.spz").means - everywhere.means)[1:].abs().max() <= 0.5


@pytest.mark.parametrize("options", ALL)
@pytest.mark.parametrize("count", [0, 1])
def test_spz_none_and_one(tmp_path: Path, count: int, options: spz.Options) -> None:
    spz.write(make_splats(count), tmp_path / "a.spz", options)
    assert len(spz.read(tmp_path / "a.spz")) == count


def test_spz_rejects_unwritable_assets(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no plain points"):
        spz.write(Points(torch.zeros(1, 3)), tmp_path / "a.spz")  # type: ignore[arg-type]
    nan_splats = make_splats(3)
    nan_splats.means[1, 1] = math.nan
    with pytest.raises(FormatError, match="NaN"):
        spz.write(nan_splats, tmp_path / "a.spz")
    assert not list(tmp_path.iterdir())


def test_spz_rejects_unreadable_files(tmp_path: Path) -> None:
    file = tmp_path / "a.spz"
    spz.write(make_splats(10), file)
    whole = file.read_bytes()
    plain = gzip.decompress(whole)
    lies = [whole[:-20], whole[:5], b"", b"ply\n", gzip.compress(plain[:-1]), gzip.compress(plain[:10])]
    lies.append(gzip.compress(plain[:8] + b"\xff\xff\xff\x03" + plain[12:]))
    lies.append(gzip.compress(plain[:4] + b"\x09" + plain[5:]))
    for data in lies:
        file.write_bytes(data)
        with pytest.raises(FormatError):
            spz.read(file)


@pytest.mark.parametrize("kind", ["v2", "v3", "v4", "raw"])
def test_spz_reads_external_files(kind: str) -> None:
    file = DATA / f"minimal-{kind}.spz"
    if not file.exists():
        pytest.skip("the files of ../shared/data are not here")
    actual = spz.read(file)
    assert len(actual) == 4
    if kind == "raw":  # without gzip, which gsply requires
        assert actual.means.tolist() == [[-1, 0, -1], [0, 0, -1], [-1, 0, 0], [0, 0, 0]]
        return
    external_scene = gsply.read_spz(str(file))
    assert np.abs(actual.means.numpy() - external_scene.means).max() == 0
    assert np.abs(actual.log_scales.numpy() - external_scene.scales).max() < 1e-6
    assert np.abs(actual.quats.numpy() - external_scene.quats).max() < 1e-6


def test_spz_matches_ply_of_same_scene() -> None:
    """Niantic's programs rotated the SPZ to right-up-back; the test rotates it back."""
    files = [DATA / "biker.spz", DATA / "biker.compressed.ply"]
    if not all(file.exists() for file in files):
        pytest.skip("the files of ../shared/data are not here")
    spz_splats, ply_splats = spz.read(files[0]), ply.read(files[1])
    assert isinstance(ply_splats, Splats) and len(spz_splats) == len(ply_splats) == 152746
    half_turn = torch.tensor([1.0, -1.0, -1.0])
    room = 3.2 / 1023  # step in the largest chunk of the PLY
    assert ((spz_splats.means * half_turn - ply_splats.means).abs() < room + 2.0**-12).all()
    assert (spz_splats.log_scales - ply_splats.log_scales.clamp(min=-10)).abs().max() < 1 / 32 + 10 / 1023
    assert (
        torch.sigmoid(spz_splats.logit_opacities) - torch.sigmoid(ply_splats.logit_opacities)
    ).abs().max() < 1.6 / 255
    assert (spz_splats.sh - ply_splats.sh).abs().max() < 0.5 / 255 / 0.15 + 0.02
    rotations = spz_splats.quats * torch.cat([torch.ones(1), torch.tensor([1.0, -1.0, -1.0])])
    assert (1 - (rotations * ply_splats.quats).sum(dim=1).abs()).max() < 1e-5
    unrotated_match = (spz_splats.quats * ply_splats.quats).sum(dim=1).abs()
    assert unrotated_match.mean() < 0.9  # without the rotation the scenes differ


# --- versions, degrees and extensions that are only read --------------------------------------------------------------


def plain(path: Path, splats: Splats, version: int = 2) -> bytes:
    spz.write(splats, path, spz.Options(version=version))  # type: ignore[arg-type]
    return gzip.decompress(path.read_bytes())


def test_spz_reads_version_1(tmp_path: Path) -> None:
    splats = make_splats(7, 1)
    data = plain(tmp_path / "a.spz", splats)
    means = splats.means.numpy().astype("<f2").tobytes()
    (tmp_path / "a.spz").write_bytes(gzip.compress(data[:4] + b"\1" + data[5:16] + means + data[16 + 63 :]))
    back = spz.read(tmp_path / "a.spz")
    assert torch.equal(back.means, splats.means.half().float()) and back.sh_degree == 1
    (tmp_path / "a.spz").write_bytes(gzip.compress(data[:4] + b"\1" + data[5:16] + b"\xff" * 42 + data[16 + 63 :]))
    with pytest.raises(FormatError, match="NaN"):
        spz.read(tmp_path / "a.spz")


def test_spz_drops_degree_4(tmp_path: Path) -> None:
    splats = make_splats(7, 3)
    data = plain(tmp_path / "a.spz", splats)
    expected = spz.read(tmp_path / "a.spz")
    body, sh_rest = data[16:-315], np.frombuffer(data[-315:], np.uint8).reshape(7, 45)
    more = np.concatenate([sh_rest, np.full((7, 27), 200, np.uint8)], axis=1)
    (tmp_path / "a.spz").write_bytes(gzip.compress(data[:12] + b"\4" + data[13:16] + body + more.tobytes()))
    assert torch.equal(spz.read(tmp_path / "a.spz").sh, expected.sh)


def test_spz_sh_degree_option(tmp_path: Path) -> None:
    splats = make_splats(50, 3)
    for degree, expected in ((0, 0), (2, 2), (None, 3)):
        spz.write(splats, tmp_path / "a.spz", spz.Options(sh_degree=degree))
        back = spz.read(tmp_path / "a.spz")
        spz.write(Splats(*list(vars(splats).values())[:4], splats.sh[:, : (expected + 1) ** 2]), tmp_path / "b.spz")
        assert torch.equal(back.sh, spz.read(tmp_path / "b.spz").sh)
    spz.write(make_splats(5, 1), tmp_path / "a.spz", spz.Options(sh_degree=3))
    assert spz.read(tmp_path / "a.spz").sh_degree == 1


@pytest.mark.parametrize("version", [2, 3, 4])
def test_spz_axes_extension(tmp_path: Path, version: int) -> None:
    """The axes extension is rejected unless it declares the default axes; other extensions are ignored."""
    path = tmp_path / "a.spz"
    spz.write(make_splats(7, 1), path, spz.Options(version=version))  # type: ignore[arg-type]
    whole = path.read_bytes()
    before = spz.read(path).means
    orbit = struct.pack("<IIfff", 0xADBE0002, 12, 0, 1, 2)

    def with_extension(records: bytes) -> bytes:
        if version == 4:
            start = struct.unpack_from("<I", whole, 16)[0] + len(records)
            return whole[:14] + b"\2" + whole[15:16] + struct.pack("<I", start) + whole[20:32] + records + whole[32:]
        data = gzip.decompress(whole)
        return gzip.compress(data[:14] + b"\2" + data[15:] + records)

    for axes, subdivisions in ((0, True), (4, True), (6, False), (5, False), (16, False)):
        path.write_bytes(with_extension(orbit + struct.pack("<III", 0xADBE0003, 4, axes)))
        if subdivisions:
            assert torch.equal(spz.read(path).means, before)
        else:
            with pytest.raises(FormatError, match=f"axes are rotated .*coordinate_system {axes}"):
                spz.read(path)
    path.write_bytes(with_extension(orbit + struct.pack("<II", 0xADBE0003, 1 << 31)))  # longer than the file
    corrupted_files.read_or_reject(spz.read, path)


# --- hostile files ----------------------------------------------------------------------------------------------------


def test_spz_checks_count_before_allocation(tmp_path: Path) -> None:
    head = struct.pack("<IIIBBBB", spz.SPZ_MAGIC, 2, 40_000_000, 3, 12, 0, 0)
    bomb = gzip.compress(head + bytes(300_000_000), 9)
    spz.write(make_splats(20, 1), tmp_path / "a.spz", spz.Options(version=4))
    four = (tmp_path / "a.spz").read_bytes()
    frame = zstandard.compress(bytes(300_000_000), 9)
    # A first frame far longer than the table states, and a header that announces all of it.
    longer = four[:32] + struct.pack("<QQ", len(frame), 180) + four[48:128] + frame
    most = four[:8] + struct.pack("<I", 0xFFFFFFFF) + four[12:]
    lies = [bomb, struct.pack("<IIIBBBB", spz.SPZ_MAGIC, 2, 1 << 31, 3, 12, 0, 0), longer, most]
    corrupted_files.assert_survives(spz.read, tmp_path / "a.spz", lies)
    for data, message in ((bomb, "which no file of"), (most, "which no file of")):
        (tmp_path / "a.spz").write_bytes(data)
        with pytest.raises(FormatError, match=message):
            spz.read(tmp_path / "a.spz")


@pytest.mark.parametrize("version", [2, 4])
def test_spz_survives_damage(tmp_path: Path, version: int) -> None:
    path = tmp_path / "a.spz"
    spz.write(make_splats(50, 1), path, spz.Options(version=version))  # type: ignore[arg-type]
    data = path.read_bytes()
    corrupted_files.assert_survives(spz.read, path, corrupted_files.iterate_damage(data))
    if version == 2:  # gzip detects nearly all damage, so the data is also damaged before compression
        inner = gzip.decompress(data)
        corrupted_files.assert_survives(
            spz.read, path, (gzip.compress(variant, 1) for variant in corrupted_files.iterate_damage(inner))
        )


@pytest.mark.parametrize("version", [2, 4])
@corrupted_files.robustness_settings
@given(changes=corrupted_files.edit_lists)
def test_spz_survives_edits(tmp_path: Path, version: int, changes: corrupted_files.Edits) -> None:
    path = tmp_path / "a.spz"
    spz.write(make_splats(5, 1), path, spz.Options(version=version))  # type: ignore[arg-type]
    data = path.read_bytes()
    if version == 2:
        data = gzip.compress(corrupted_files.apply_edits(gzip.decompress(data), changes), 1)
    else:
        data = corrupted_files.apply_edits(data, changes)
    path.write_bytes(data)
    corrupted_files.read_or_reject(spz.read, path)
