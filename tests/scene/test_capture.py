"""A capture keeps image, camera, name, mask and points together, and training never sees what is held out."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from lumigraph.scene.assets import Points
from lumigraph.scene.cameras import Cameras
from lumigraph.scene.capture import ArrayPhotos, Capture, LazyPhotos, hold_out_every_eighth
from lumigraph.scene.errors import CaptureError


def photos(n: int) -> list[Tensor]:
    """Photo i is 4x3 pixels of the value i."""
    return [torch.full((3, 4, 3), i, dtype=torch.uint8) for i in range(n)]


def make(**parts: object) -> Capture:
    n = 5
    pose = torch.eye(4)[None, :3].repeat(n, 1, 1)
    pose[:, 0, 3] = torch.arange(n)
    cameras = Cameras(pose, torch.ones(n, 2), torch.ones(n, 2), torch.tensor([[4, 3]]).repeat(n, 1))
    held_out = torch.zeros(n, dtype=torch.bool)
    held_out[::3] = True
    given: dict[str, object] = {
        "cameras": cameras,
        "photos": ArrayPhotos(photos(n)),
        "names": tuple(f"{i}.png" for i in range(n)),
        "held_out": held_out,
        **parts,
    }
    return Capture(**given)  # type: ignore[arg-type]


def points(rows: list[list[int]]) -> Points:
    offsets = torch.tensor([0, *(len(row) for row in rows)]).cumsum(0)
    images = torch.tensor([image for row in rows for image in row], dtype=torch.int32)
    return Points(torch.arange(3 * len(rows)).view(-1, 3).float(), view_offsets=offsets, view_indices=images)


class Decoder:
    """Counts how often a path is decoded to a photo of 100 bytes."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, path: Path) -> Tensor:
        self.asked.append(path.name)
        return torch.full((10, 10, 1), int(path.name), dtype=torch.uint8)


def lazy(n: int, cache_bytes: int) -> tuple[LazyPhotos, Decoder]:
    decoder = Decoder()
    return LazyPhotos([Path(str(i)) for i in range(n)], decoder, cache_bytes), decoder


def test_photos_are_decoded_once_while_there_is_room() -> None:
    some, decoder = lazy(4, 300)
    assert not decoder.asked and len(some) == 4
    for i in (0, 1, 2, 0, 2):
        assert some[i][0, 0, 0] == i
    assert decoder.asked == ["0", "1", "2"]
    assert some[-1][0, 0, 0] == 3  # takes the place of 1, which was not used for the longest time
    assert [some[i][0, 0, 0].item() for i in (2, 0, 3)] == [2, 0, 3]
    assert decoder.asked == ["0", "1", "2", "3"]
    assert some[1][0, 0, 0] == 1
    assert decoder.asked == ["0", "1", "2", "3", "1"]


def test_a_photo_larger_than_the_room_pushes_nothing_out() -> None:
    some, decoder = lazy(2, 99)
    assert some[0] is not some[0]
    assert decoder.asked == ["0", "0"]
    with pytest.raises(IndexError):
        some[2]


def test_a_decoder_must_give_8_bit_pixels() -> None:
    some = LazyPhotos([Path("deep.png")], lambda _: torch.zeros(2, 2, 3))
    with pytest.raises(CaptureError, match=r"deep\.png decoded to torch\.float32"):
        some[0]


def test_selecting_keeps_parts_together() -> None:
    masks = ArrayPhotos([photo[..., :1] + 100 for photo in photos(5)])
    capture = make(masks=masks, points=points([[0, 1], [1, 4], [2]]), metres_per_unit=2.0, source="colmap")
    some = capture.select([4, 1])
    assert len(some) == 2 and some.names == ("4.png", "1.png")
    assert some.cameras.positions[:, 0].tolist() == [4, 1]
    assert [int(some.photo(i)[0, 0, 0]) for i in range(2)] == [4, 1]
    assert some.masks is not None and int(some.masks[0][0, 0, 0]) == 104
    assert some.points is not None and some.points.view_indices is not None
    assert some.points.view_indices.tolist() == [1, 1, 0]
    assert some.held_out.tolist() == [False, False]
    assert some.metres_per_unit == 2 and some.source == "colmap"
    again = some.select(torch.tensor([True, False]))
    assert again.names == ("4.png",) and int(again.photo(0)[0, 0, 0]) == 4
    assert capture.select([-1]).names == ("4.png",)
    with pytest.raises(ValueError, match="only once"):
        capture.select([1, 1])
    with pytest.raises(IndexError):
        capture.select([5])


def test_training_never_sees_what_is_held_out() -> None:
    capture = make(points=points([[0, 3], [0, 1], [1, 2], [1, 2, 3], [4, 0, 1]]))  # 0 and 3 are held out
    train, held_out = capture.split()
    assert train.names == ("1.png", "2.png", "4.png") and not train.held_out.any()
    assert held_out.names == ("0.png", "3.png") and held_out.held_out.all()
    assert train.points is not None and train.points.view_indices is not None
    assert train.points.xyz[:, 0].tolist() == [6, 9, 12]
    assert train.points.view_indices.tolist() == [0, 1, 0, 1, 2, 0]


def test_points_of_unknown_views_stay() -> None:
    train, _ = make(points=Points(torch.rand(4, 3))).split()
    assert train.points is not None and len(train.points) == 4
    train, _ = make().split()
    assert train.points is None


def test_a_photo_must_fit_its_camera() -> None:
    capture = make(photos=ArrayPhotos([*photos(4), torch.zeros(4, 3, 3, dtype=torch.uint8)]))
    assert capture.photo(3).shape == (3, 4, 3)
    with pytest.raises(CaptureError, match=r"4\.png is 3x4 pixels .* its camera says 4x3"):
        capture.photo(4)
    with pytest.raises(CaptureError, match="3 channels, but its camera says 4x3 with 4"):
        make(has_alpha=True).photo(0)


def test_parts_that_do_not_fit_are_refused() -> None:
    wrong: list[tuple[dict[str, object], str]] = [
        ({"photos": ArrayPhotos(photos(4))}, "5 cameras but 4 photos"),
        ({"names": ("a", "b")}, "5 cameras but 2 names"),
        ({"masks": ArrayPhotos(photos(6))}, "5 cameras but 6 masks"),
        ({"held_out": torch.zeros(5)}, "held_out must be a bool"),
        ({"points": points([[5]])}, "names image 5"),
    ]
    for change, message in wrong:
        with pytest.raises(CaptureError, match=message):
            make(**change)


def test_every_eighth_goes_by_name() -> None:
    names = [f"{i:02}.jpg" for i in range(20)]
    assert hold_out_every_eighth(names).nonzero()[:, 0].tolist() == [0, 8, 16]
    assert hold_out_every_eighth(names[::-1]).nonzero()[:, 0].tolist() == [3, 11, 19]
    assert hold_out_every_eighth([]).tolist() == []
