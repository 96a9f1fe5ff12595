"""`.ksplat`: an external file, files packed by hand from the format description, and hostile ones."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given

from lumigraph.formats import ksplat
from lumigraph.formats.quantization import block_slices
from lumigraph.scene.assets import Splats
from lumigraph.scene.errors import FormatError
from lumigraph.scene.harmonics import C0
from tests.formats import corrupted_files
from tests.formats.test_ply import DATA, make_splats

BUCKETS = [4, 4, 3, 1]  # gaussians in each: two full buckets of 4, and two partial ones


def pack(splats: Splats, level: int) -> bytes:
    """Pack one section, gaussian by gaussian, with capacity for one more."""
    count, degree, block = len(splats), splats.sh_degree, 20.0
    assert count == sum(BUCKETS)
    centres = [[0.5 * i, -0.25 * i, 0.125 * i] for i in range(len(BUCKETS))]
    bucket = [i for i, length in enumerate(BUCKETS) for _ in range(length)]
    number = "<f" if level == 0 else "<e"
    rows = b""
    for i in range(count):
        if level == 0:
            rows += struct.pack("<3f", *splats.means[i].tolist())
        else:
            away = [x - c for x, c in zip(splats.means[i].tolist(), centres[bucket[i]], strict=True)]
            rows += struct.pack("<3H", *(round(x / (block / 2 / 32767)) + 32767 for x in away))
        rows += b"".join(struct.pack(number, x) for x in splats.log_scales[i].exp().tolist())
        rows += b"".join(struct.pack(number, x) for x in splats.quats[i].tolist())
        rows += bytes(round(255 * min(max(x, 0), 1)) for x in splats.colours()[i].tolist())
        rows += bytes([round(255 * torch.sigmoid(splats.logit_opacities[i]).item())])
        for d in range(1, degree + 1):
            for channel in range(3):
                for k in range(d * d, (d + 1) ** 2):
                    x = splats.sh[i, k, channel].item()
                    rows += bytes([round((x + 3) / 6 * 255)]) if level == 2 else struct.pack(number, x)
    rows += bytes(len(rows) // count)
    head = bytearray(4096)
    struct.pack_into("<BBHIIIIH", head, 0, 0, 1, 0, 1, 1, count, count, level)
    struct.pack_into("<ff", head, 36, -3, 3)
    section = bytearray(1024)
    struct.pack_into("<IIII", section, 0, count, count + 1, 4, len(BUCKETS))
    struct.pack_into("<fH", section, 16, block, 12)
    struct.pack_into("<I", section, 24, 32767 if level else 1)
    struct.pack_into("<IIH", section, 32, 2, 2, degree)
    return bytes(head) + bytes(section) + struct.pack("<II", 3, 1) + np.array(centres, "<f4").tobytes() + rows


def example(degree: int) -> Splats:
    splats = make_splats(12, degree)
    sh = splats.sh.clamp(-2.9, 2.9)
    sh[:, 0] = sh[:, 0].clamp(-0.5 / C0, 0.5 / C0)
    return Splats(splats.means, splats.log_scales, splats.quats, splats.logit_opacities, sh)


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("degree", [0, 1, 2])
def test_ksplat_levels_and_degrees(tmp_path: Path, level: int, degree: int) -> None:
    splats, path = example(degree), tmp_path / "a.ksplat"
    path.write_bytes(pack(splats, level))
    back = ksplat.read(path)
    assert len(back) == 12 and back.sh_degree == degree
    assert (back.means - splats.means).abs().max() <= (10 / 32767 / 2 * 1.01 if level else 0)
    assert (back.log_scales - splats.log_scales).abs().max() < (2e-3 if level else 1e-5)
    assert (back.quats - splats.quats).abs().max() <= (2e-3 if level else 0)
    assert (torch.sigmoid(back.logit_opacities) - torch.sigmoid(splats.logit_opacities)).abs().max() <= 0.76 / 255
    assert (back.colours() - splats.colours()).abs().max() <= 0.5 / 255 + 1e-6
    if degree:
        assert (back.sh[:, 1:] - splats.sh[:, 1:]).abs().max() <= (0, 2e-3, 3.01 / 255)[level]


@pytest.mark.parametrize("level", [0, 2])
def test_ksplat_stream_matches_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: int) -> None:
    """Blocks of five gaussians end within buckets."""
    path = tmp_path / "a.ksplat"
    path.write_bytes(pack(example(1), level))
    whole = ksplat.read(path)
    monkeypatch.setattr(ksplat, "block_slices", lambda count: block_slices(count, 5))
    batches = list(ksplat.stream(path))
    assert [len(batch) for batch in batches] == [5, 5, 2]
    for name, value in vars(whole).items():
        assert torch.equal(torch.cat([getattr(batch, name) for batch in batches]), value)


def test_ksplat_reads_external_file() -> None:
    path = DATA / "minimal.ksplat"
    if not path.exists():
        pytest.skip("the splats of ../shared/data are not here")
    splats = ksplat.read(path)
    assert splats.means.tolist() == [[-1, 0, -1], [0, 0, -1], [-1, 0, 0], [0, 0, 0]]
    assert torch.allclose(splats.log_scales, torch.tensor(math.log(0.1)))
    assert splats.quats.tolist() == [[0, 0, 0, 1]] * 4
    assert splats.colours()[1, 0].item() == pytest.approx(0xAA / 255)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (0, b"\1", "of version 0.1"),
        (20, b"\3", "level 0 to 2"),
        (4, b"\xff\xff\xff\xff", "version 0.1 and level"),
        (16, b"\1", "1 gaussians, which its sections do not hold"),
        (4096, b"\0\0\0\0", "12 gaussians, which its sections"),
        (4100, b"\xff\xff\xff\xff", "announces 4294967295 gaussians"),
        (4096 + 40, b"\4", "of an unknown type"),
        (4096 + 12, b"\3", "more buckets than there are"),
        (4096 + 36, b"\xff\xff\xff\xff", "cut short"),
        (4096 + 16, struct.pack("<f", math.nan), "of an unknown type"),
    ],
)
def test_ksplat_rejects_false_headers(tmp_path: Path, place: int, value: bytes, message: str) -> None:
    data = bytearray(pack(example(1), 1))
    data[place : place + len(value)] = value
    (tmp_path / "bad.ksplat").write_bytes(data)
    with pytest.raises(FormatError, match=message):
        ksplat.read(tmp_path / "bad.ksplat")


@pytest.mark.parametrize("level", [0, 2])
def test_ksplat_survives_damage(tmp_path: Path, level: int) -> None:
    """Most of a header is empty, so only the other bytes are damaged."""
    data = pack(example(1), level)
    parts = (data[:64], data[64:4096], data[4096:4160], data[4160:5120], data[5120:])

    def concatenate(a: bytes, b: bytes, c: bytes) -> bytes:
        return a + parts[1] + b + parts[3] + c

    files = [
        concatenate(part, parts[2], parts[4]) for part in corrupted_files.iterate_damage(parts[0]) if len(part) == 64
    ]
    files += [
        concatenate(parts[0], part, parts[4]) for part in corrupted_files.iterate_damage(parts[2]) if len(part) == 64
    ]
    files += [concatenate(parts[0], parts[2], part) for part in corrupted_files.iterate_damage(parts[4])]
    files += list(corrupted_files.iterate_damage(data, flips=20))
    corrupted_files.assert_survives(ksplat.read, tmp_path / "a.ksplat", files)


@corrupted_files.robustness_settings
@given(changes=corrupted_files.edit_lists, seed=corrupted_files.st.integers(0, 99))
def test_ksplat_survives_edits(tmp_path: Path, changes: corrupted_files.Edits, seed: int) -> None:
    data = np.frombuffer(pack(example(1), seed % 3), np.uint8).copy()
    draw = np.random.default_rng(seed)
    for start in (0, 4096):
        data[start + draw.integers(0, 44)] = draw.integers(256)
    (tmp_path / "a.ksplat").write_bytes(corrupted_files.apply_edits(data.tobytes(), changes))
    corrupted_files.read_or_reject(ksplat.read, tmp_path / "a.ksplat")
