"""SPZ: what we write is what another reader sees, within the bytes that the format gives it."""

from __future__ import annotations

import gzip
import math
import struct
from pathlib import Path

import gsply
import numpy as np
import pytest
import torch

from lumigraph.formats import spz
from lumigraph.scene.assets import Points, Splats
from lumigraph.scene.errors import FormatError
from lumigraph.scene.poses import matrix_from_quaternion
from tests.formats.test_ply import DATA, some_splats


def covariances(log_scales: torch.Tensor, quats: torch.Tensor) -> torch.Tensor:
    """(N, 3, 3) in units of each gaussian's largest axis: what can be seen of scales and rotations."""
    scales = (log_scales - log_scales.max(dim=1, keepdim=True).values).exp()
    turned = matrix_from_quaternion(torch.nn.functional.normalize(quats, dim=1)) * scales[:, None]
    return turned @ turned.transpose(1, 2)


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


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_what_is_written_comes_back(tmp_path: Path, degree: int) -> None:
    splats = some_splats(500, degree)
    spz.write(splats, tmp_path / "a.spz")
    assert_same(spz.read(tmp_path / "a.spz"), splats)


@pytest.mark.parametrize("degree", [0, 3])
def test_another_reader_sees_the_same(tmp_path: Path, degree: int) -> None:
    splats = some_splats(200, degree)
    spz.write(splats, tmp_path / "a.spz")
    other = gsply.read_spz(str(tmp_path / "a.spz"))
    parts = [np.asarray(part, np.float32) for part in (other.means, other.scales, other.quats, other.opacities)]
    means, scales, quats, logits = (torch.from_numpy(np.ascontiguousarray(part)) for part in parts)
    sh = np.asarray(other.sh0, np.float32)[:, None]
    if degree:
        sh = np.concatenate([sh, np.asarray(other.shN, np.float32)], axis=1)
    assert_same(Splats(means, scales, quats, logits.reshape(-1), torch.from_numpy(sh)), splats)


def test_every_byte_is_where_the_format_puts_it(tmp_path: Path) -> None:
    """Worked out by hand from the description of the format, for two gaussians."""
    sh = torch.zeros(2, 4, 3)
    sh[0, 0] = torch.tensor([0.0, 1.0, -4.0])  # the last is darker than the format knows
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


def test_far_gaussians_cost_near_ones_nothing(tmp_path: Path) -> None:
    splats = some_splats(3000, 0)
    splats.means[0, 0] = 1e6
    spz.write(splats, tmp_path / "a.spz")
    back = spz.read(tmp_path / "a.spz")
    assert (back.means - splats.means)[1:].abs().max() <= 2.0**-12
    assert back.means[0, 0] > 2000  # as far as it goes, on the right side
    everywhere = Splats(
        splats.means * 1e5, *[getattr(splats, n) for n in ("log_scales", "quats", "logit_opacities")], splats.sh
    )
    spz.write(everywhere, tmp_path / "b.spz")
    assert (spz.read(tmp_path / "b.spz").means - everywhere.means)[1:].abs().max() <= 0.5


@pytest.mark.parametrize("count", [0, 1])
def test_none_and_one(tmp_path: Path, count: int) -> None:
    spz.write(some_splats(count), tmp_path / "a.spz")
    assert len(spz.read(tmp_path / "a.spz")) == count


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no plain points"):
        spz.write(Points(torch.zeros(1, 3)), tmp_path / "a.spz")
    broken = some_splats(3)
    broken.means[1, 1] = math.nan
    with pytest.raises(FormatError, match="NaN"):
        spz.write(broken, tmp_path / "a.spz")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    file = tmp_path / "a.spz"
    spz.write(some_splats(10), file)
    whole = file.read_bytes()
    plain = gzip.decompress(whole)
    lies = [whole[:-20], whole[:5], b"", b"ply\n", gzip.compress(plain[:-1]), gzip.compress(plain[:10])]
    lies.append(gzip.compress(plain[:8] + b"\xff\xff\xff\x03" + plain[12:]))
    lies.append(gzip.compress(plain[:4] + b"\x09" + plain[5:]))
    for data in lies:
        file.write_bytes(data)
        with pytest.raises(FormatError):
            spz.read(file)


def test_a_file_that_nobody_here_wrote() -> None:
    file = DATA / "minimal-v2.spz"
    if not file.exists():
        pytest.skip("the files of others are not here")
    other = gsply.read_spz(str(file))
    ours = spz.read(file)
    assert len(ours) == 4
    assert np.abs(ours.means.numpy() - other.means).max() == 0
    assert np.abs(ours.log_scales.numpy() - other.scales).max() < 1e-6
    assert np.abs(ours.quats.numpy() - other.quats).max() < 1e-6
