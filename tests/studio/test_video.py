from __future__ import annotations

from pathlib import Path

import av
import pytest
import torch

from lumigraph.studio.video_encoder import mp4_writer


def test_a_film_has_every_frame_its_colours_and_its_index_in_front(tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    frame = torch.zeros(48, 64, 3, dtype=torch.uint8)
    frame[..., 0], frame[..., 1], frame[..., 2] = 200, 80, 40
    with mp4_writer(film, (64, 48), 24) as write:
        for _ in range(12):
            write(frame)
    with av.open(str(film)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == 24
        assert (stream.codec_context.colorspace, stream.codec_context.color_primaries) == (1, 1)  # BT.709
        decoded = [picture.to_ndarray(format="rgb24") for picture in container.decode(stream)]
    assert len(decoded) == 12
    assert abs(torch.from_numpy(decoded[6]).int() - frame.int()).max() <= 4
    data = film.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_a_film_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="a frame must have the shape"),
        mp4_writer(tmp_path / "a.mp4", (64, 48), 24) as write,
    ):
        write(torch.zeros(48, 64, 3, dtype=torch.uint8))
        write(torch.zeros(48, 62, 3, dtype=torch.uint8))
    assert list(tmp_path.iterdir()) == []


def test_odd_sizes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="even"), mp4_writer(tmp_path / "a.mp4", (63, 48), 24):
        pass
