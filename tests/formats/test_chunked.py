"""Streams: batches write the same file and read the same scene as a whole asset."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lumigraph.formats import compressed_ply, dot_splat, external_sort, io, las, ply, spz, xyz
from lumigraph.formats.chunked import BATCH_ROWS, Stream, TopK, compute_medians, drain, empty_splats, select_rows
from lumigraph.formats.external_sort import ExternalSort
from lumigraph.scene.assets import Points, Splats
from lumigraph.scene.errors import FormatError
from tests.formats.test_ply import make_points, make_splats, same_bits

COUNT = 2 * BATCH_ROWS + 77


def from_a_file(asset: Splats | Points, sizes: int = 5000) -> Stream:
    """A stream as a file provides it: batches of another size than BATCH_ROWS, and no asset in memory."""
    starts = range(0, len(asset), sizes)
    return Stream(
        select_rows(asset, slice(0)), len(asset), lambda: (select_rows(asset, slice(i, i + sizes)) for i in starts)
    )


def with_ties(count: int = COUNT) -> Splats:
    """Half of the gaussians have the same size and opacity as another one."""
    splats = make_splats(count, 1)
    half = count // 2
    splats.log_scales[half : 2 * half] = splats.log_scales[:half]
    splats.logit_opacities[half : 2 * half] = splats.logit_opacities[:half]
    splats.means[half : 2 * half] = splats.means[:half]
    return splats


WRITTEN: list[tuple[Any, str, Any]] = [
    (ply, "a.ply", ply.Options()),
    (dot_splat, "a.splat", dot_splat.Options()),
    (compressed_ply, "a.compressed.ply", compressed_ply.Options()),
    (spz, "a.spz", spz.Options()),
    (spz, "a.spz", spz.Options(version=4, sh_degree=0)),
    (ply, "p.ply", ply.Options()),
    (las, "p.las", las.Options()),
    (xyz, "p.xyz", xyz.Options()),
    (xyz, "p.xyz", xyz.Options(normals=True)),
]


@pytest.mark.parametrize(("form", "name", "options"), WRITTEN)
def test_stream_roundtrip_matches_asset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: Any, name: str, options: Any
) -> None:
    asset = make_points(COUNT) if name.startswith("p") else with_ties()
    form.write(asset, tmp_path / name, options)
    monkeypatch.setattr(external_sort, "SORT_RUN_BYTES", 1 << 20)  # several runs, each read in parts
    monkeypatch.setattr(external_sort, "MERGE_BUFFER_BYTES", 1 << 18)
    monkeypatch.setattr(io, "SPOOL_MEMORY_BYTES", 1 << 16)
    (tmp_path / "streamed").mkdir()
    shares = list(form.write_stream(from_a_file(asset), tmp_path / "streamed" / name, options))
    assert shares == sorted(shares) and len(shares) > 3 and shares[-1] == pytest.approx(1)
    assert (tmp_path / "streamed" / name).read_bytes() == (tmp_path / name).read_bytes()
    assert [path.name for path in (tmp_path / "streamed").iterdir()] == [name]

    monkeypatch.setattr(spz, "FREE_BYTES", 0)  # like a file that is too large to decompress at once
    whole, stream = form.read(tmp_path / name), form.stream(tmp_path / name)
    for _ in range(2):  # repeatedly
        batches = list(stream.batches())
        assert len(batches) > 1
        for field, value in vars(whole).items():
            parts = [getattr(batch, field) for batch in batches]
            assert all(part is None for part in parts) if value is None else same_bits(torch.cat(parts), value)
    assert type(stream.template) is type(whole) and len(stream) == len(whole)


@pytest.mark.parametrize("count", [1, 999, 1000, 1001, 20_000])
def test_external_sort_matches_stable_sort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Compare with numpy's stable sort; few distinct keys put equal ones in all runs."""
    monkeypatch.setattr(external_sort, "BATCH_ROWS", 1000)
    monkeypatch.setattr(external_sort, "SORT_RUN_BYTES", 1)
    monkeypatch.setattr(external_sort, "MERGE_BUFFER_BYTES", 8000)
    draw = np.random.default_rng(count)
    for values in (draw.normal(size=count), draw.integers(0, 5, count), np.zeros(count), -np.arange(count)):
        points = Points(torch.from_numpy(np.stack([values, np.arange(count), values], axis=1)).float())
        with io.open_spool(tmp_path / "a") as spool:
            sorted_values = ExternalSort(
                from_a_file(points, 300), lambda batch: batch.xyz[:, 0].numpy(), tmp_path / "a", spool
            )  # type: ignore[union-attr]
            drain(sorted_values.collect())
            batches = list(sorted_values)
        assert [len(batch) for batch in batches[:-1]] == [1000] * (len(batches) - 1)
        result = torch.cat([batch.xyz for batch in batches]).numpy()
        assert np.array_equal(result, points.xyz.numpy()[np.argsort(points.xyz[:, 0].numpy(), kind="stable")])


def test_compute_medians_matches_torch() -> None:
    draw = torch.Generator().manual_seed(0)
    for values in (
        torch.randn(10_001, generator=draw),
        torch.randn(10_000, generator=draw) * 1e-30,
        torch.randint(-2, 2, (5000,), generator=draw).float(),
        torch.tensor([-3.5]),
        torch.tensor([-0.0, 0.0, 1e38, -1e38]),
    ):
        columns_pair = (values, -3 * values)

        def pieces(columns_pair: Any = columns_pair) -> Iterator[tuple[Any, ...]]:
            for i in range(0, len(columns_pair[0]), 777):
                yield tuple(column[i : i + 777].numpy() for column in columns_pair)

        result = compute_medians(pieces, len(values))
        assert result == [float(column.median()) for column in columns_pair]


@pytest.mark.parametrize("k", [1, 7, 500])
def test_topk_matches_sort(k: int) -> None:
    values = np.random.default_rng(k).normal(size=10_000).astype(np.float32)
    sorted_values = np.sort(values)
    for order in (values, sorted_values, sorted_values[::-1], np.roll(sorted_values, 1), np.round(values)):
        largest = TopK(k)
        for part in np.array_split(order, 23):
            largest.add(part)
        assert largest.ends() == (order.max(), np.sort(order)[-k])


def test_stream_extent_matches_asset(tmp_path: Path) -> None:
    splats = make_splats(COUNT, 0)
    stream = from_a_file(splats)
    assert not stream.has_extent
    ply.write(splats, tmp_path / "a.ply")
    drain(ply.write_stream(stream, tmp_path / "b.ply"))
    assert stream.has_extent  # a complete pass computes the extent
    sorted_values = splats.means.sort(dim=0).values
    cut = COUNT // 500
    assert torch.equal(stream.extent.bounds, splats.bounds())
    assert torch.equal(stream.extent.inner, sorted_values[[cut, COUNT - 1 - cut]])
    assert torch.equal(ply.stream(tmp_path / "a.ply").extent.inner, stream.extent.inner)
    points = from_a_file(Points(splats.means))
    assert torch.equal(points.extent.inner, splats.bounds())
    assert torch.equal(Stream.from_asset(make_splats(0)).extent.bounds, torch.zeros(2, 3))


@pytest.mark.parametrize(("form", "name", "options"), WRITTEN)
def test_check_batches_counts_nonfinite_rows(tmp_path: Path, form: Any, name: str, options: Any) -> None:
    asset = make_points(COUNT) if name.startswith("p") else make_splats(COUNT, 0)
    place = asset.xyz if isinstance(asset, Points) else asset.means
    place[[BATCH_ROWS + 5, COUNT - 1], 1] = torch.nan
    with pytest.raises(FormatError, match=rf"2 of {COUNT} (points|gaussians) hold NaN .*number {BATCH_ROWS + 5}\)"):
        drain(form.write_stream(from_a_file(asset), tmp_path / name, options))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("form", "name", "options"), WRITTEN)
def test_write_stream_interrupted_leaves_no_file(tmp_path: Path, form: Any, name: str, options: Any) -> None:
    asset = make_points(COUNT) if name.startswith("p") else make_splats(COUNT, 0)
    for count_change in (-1, 1):
        stream = from_a_file(asset)
        stream.count += count_change
        with pytest.raises(FormatError, match=rf"{COUNT} (points|gaussians) came where {COUNT + count_change}"):
            drain(form.write_stream(stream, tmp_path / name, options))
    shares = form.write_stream(from_a_file(asset), tmp_path / name, options)
    next(shares)
    shares.close()
    assert not list(tmp_path.iterdir())


def test_check_rows_counts_bad_rows(tmp_path: Path) -> None:
    splats = make_splats(COUNT, 0)
    ply.write(splats, tmp_path / "a.ply")
    data = bytearray((tmp_path / "a.ply").read_bytes())
    row = 4 * (3 + 3 + 3 + 1 + 3 + 4)
    for i in (COUNT - 1, BATCH_ROWS + 1, 40):  # opacity of the first two, rotation of the last
        at = len(data) - (COUNT - i) * row
        data[at + 36 : at + row] = bytes(32) if i == 40 else data[at + 36 : at + 36] + b"\xff" * 4 + bytes(28)
    (tmp_path / "a.ply").write_bytes(data)
    with pytest.raises(
        FormatError, match=rf"2 of {COUNT} vertices hold NaN or infinity \(the first is vertex {BATCH_ROWS + 1}"
    ):
        ply.read(tmp_path / "a.ply")


def test_stream_rejects_truncation_between_passes(tmp_path: Path) -> None:
    for form, name, options in WRITTEN:
        asset = make_points(COUNT) if name.startswith("p") else make_splats(COUNT, 0)
        form.write(asset, tmp_path / name, options)
        stream = form.stream(tmp_path / name)
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) // 2])
        with pytest.raises(FormatError):
            drain(ply.write_stream(stream, tmp_path / "out.ply"))
        assert not (tmp_path / "out.ply").exists()


def test_stream_is_lazy() -> None:
    def never() -> Iterator[Splats]:
        raise AssertionError
        yield empty_splats(0)

    stream = Stream(empty_splats(2), 5, never).map_batches(lambda batch: batch)
    assert len(stream) == 5 and isinstance(stream.template, Splats) and stream.template.sh_degree == 2
