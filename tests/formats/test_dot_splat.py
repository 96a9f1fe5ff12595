"""`.splat`: byte layout, the order of its own converter, rejection of hostile files."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given

from lumigraph.formats import dot_splat
from lumigraph.scene.assets import Points, Splats
from lumigraph.scene.errors import FormatError
from lumigraph.scene.harmonics import C0
from tests.formats import corrupted_files
from tests.formats.test_ply import DATA, make_splats


def test_dot_splat_reads_external_file() -> None:
    path = DATA / "minimal.splat"
    if not path.exists():
        pytest.skip("the splats of ../shared/data are not here")
    splats = dot_splat.read(path)
    assert splats.means.tolist() == [[-1, 0, -1], [0, 0, -1], [-1, 0, 0], [0, 0, 0]]
    assert torch.allclose(splats.log_scales, torch.tensor(math.log(0.1)))
    assert torch.allclose(torch.sigmoid(splats.logit_opacities), torch.tensor(0xE6 / 255))
    red, blue = splats.colours()[0, 0], splats.colours()[0, 2]
    assert red == pytest.approx(0x55 / 255, abs=1e-6) and blue == pytest.approx(0x80 / 255, abs=1e-6)
    assert torch.nn.functional.normalize(splats.quats, dim=1).tolist() == [[0, 0, 0, 1]] * 4


def test_dot_splat_byte_layout(tmp_path: Path) -> None:
    splats = Splats(
        means=torch.tensor([[1.0, -2.0, 3.0], [0.0, 0.0, 0.0]]),
        log_scales=torch.tensor([[0.5, 0.0, -1.0], [1.0, 1.0, 1.0]]).log1p(),
        quats=torch.tensor([[2.0, 0.0, 0.0, 0.0], [0.0, -3.0, 0.0, 4.0]]),
        logit_opacities=torch.tensor([0.0, 100.0]),
        sh=torch.tensor([[[0.0, 1 / C0, -1.0]], [[0.5 / C0, 0.0, -0.5 / C0]]]),
    )
    splats.log_scales[0] = torch.tensor([0.5, 0.25, 2.0]).log()
    dot_splat.write(splats, tmp_path / "a.splat")
    data = (tmp_path / "a.splat").read_bytes()
    # 8 * 1 comes before 0.25 * 0.5
    assert struct.unpack("<6f8B", data[:32]) == (0, 0, 0, 2, 2, 2, 255, 128, 0, 255, 128, 51, 128, 230)
    assert struct.unpack("<3f", data[32:44]) == (1, -2, 3)
    assert struct.unpack("<3f", data[44:56]) == pytest.approx((0.5, 0.25, 2.0))
    assert list(data[56:]) == [128, 255, round((0.5 - C0) * 255), 128, 255, 128, 128, 128]


def test_dot_splat_roundtrip_sorts_by_importance(tmp_path: Path) -> None:
    splats = make_splats(5000, 2)
    dot_splat.write(splats, tmp_path / "a.splat")
    back = dot_splat.read(tmp_path / "a.splat")
    weight = splats.log_scales.double().sum(dim=1).exp() * torch.sigmoid(splats.logit_opacities.double())
    order = np.argsort(-weight.numpy(), kind="stable")
    splats = splats.select(torch.from_numpy(order))
    assert back.sh_degree == 0 and torch.equal(back.means, splats.means)
    assert torch.allclose(back.log_scales, splats.log_scales, atol=1e-5)
    assert (torch.sigmoid(back.logit_opacities) - torch.sigmoid(splats.logit_opacities)).abs().max() <= 0.76 / 255
    assert (back.colours() - splats.colours().clamp(0, 1)).abs().max() <= 0.5 / 255 + 1e-6
    unit_quats = torch.nn.functional.normalize(splats.quats, dim=1)
    assert (back.quats - unit_quats).abs().max() <= 1.01 / 128


def test_dot_splat_reads_flat_gaussians_only(tmp_path: Path) -> None:
    path = tmp_path / "a.splat"
    dot_splat.write(make_splats(4), path)
    rows = np.fromfile(path, dot_splat.SPLAT_ROW)
    rows["scale"][2, 1] = 0
    rows.tofile(path)
    assert dot_splat.read(path).log_scales[2, 1] == dot_splat.MIN_WRITTEN_LOG_SCALE
    for field, value in (("scale", -1), ("scale", np.nan), ("scale", 1e20), ("mean", np.inf), ("turn", 128)):
        changed_rows = rows.copy()
        changed_rows[field][1] = value
        changed_rows.tofile(path)
        with pytest.raises(FormatError, match=r"byte 32: 1 of 4 gaussians"):
            dot_splat.read(path)


def test_dot_splat_rejects_unwritable_assets(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no plain points"):
        dot_splat.write(Points(torch.zeros(1, 3)), tmp_path / "a.splat")  # type: ignore[arg-type]
    with pytest.raises(FormatError, match="no gaussians"):
        dot_splat.write(make_splats(0), tmp_path / "a.splat")
    assert not list(tmp_path.iterdir())


def test_dot_splat_survives_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.splat"
    dot_splat.write(make_splats(50), path)
    data = path.read_bytes()
    corrupted_files.assert_survives(
        dot_splat.read, path, [*corrupted_files.iterate_damage(data), bytes(3200), b"\xff" * 3200]
    )


@corrupted_files.robustness_settings
@given(changes=corrupted_files.edit_lists)
def test_dot_splat_survives_edits(tmp_path: Path, changes: corrupted_files.Edits) -> None:
    path = tmp_path / "a.splat"
    dot_splat.write(make_splats(4), path)
    path.write_bytes(corrupted_files.apply_edits(path.read_bytes(), changes))
    corrupted_files.read_or_reject(dot_splat.read, path)
