"""Compiled descriptor matching, for each instruction set, against the table of all dot products."""

import importlib

import numpy as np
import pytest
from numpy.typing import NDArray

from lumigraph.kernels import descriptor_match, native
from lumigraph.kernels.reference import descriptor_match as reference

Descriptors = NDArray[np.uint8]
ANY_BEST = np.zeros(65536, np.uint32)  # no ratio test
RATIO = np.minimum(1.05 * np.arange(65536) + 100, 65536).astype(np.uint32)


@pytest.fixture(params=native.ISA_LEVELS)
def instruction_set(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    level: str = request.param
    if not native.native.cpu_supports(level):
        pytest.skip(f"this processor does not run {level}")
    module = importlib.import_module(f"lumigraph.kernels._native_{level}")
    monkeypatch.setattr(descriptor_match, "native", module)
    return level


def descriptors(random: np.random.Generator, count: int) -> Descriptors:
    histograms = random.random((count, 128)) ** 4
    histograms /= histograms.sum(axis=1, keepdims=True)
    return np.minimum(np.rint(250 * np.sqrt(histograms)), 127).astype(np.uint8)


def related_descriptors(random: np.random.Generator, first: Descriptors, count: int) -> Descriptors:
    """Create descriptors: half are noisy copies of `first`, a fifth are copies of each other."""
    second, half = descriptors(random, count), min(len(first), count) // 2
    noisy = first[:half].astype(int) + random.integers(-2, 3, (half, 128))
    second[:half] = np.clip(noisy, 0, 120)
    second[random.integers(0, count, count // 5)] = second[random.integers(0, count, count // 5)]
    return second[random.permutation(count)]


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("sizes", [(1, 1), (2, 70), (70, 2), (63, 65), (333, 257), (300, 700)])
@pytest.mark.parametrize("min_scores", [ANY_BEST, RATIO], ids=["best", "ratio"])
def test_descriptor_match_equals_the_reference(sizes: tuple[int, int], min_scores: NDArray[np.uint32]) -> None:
    random = np.random.default_rng(sizes)
    first = descriptors(random, sizes[0])
    second = related_descriptors(random, first, sizes[1])
    matches = descriptor_match.match(first, second, min_scores)
    np.testing.assert_array_equal(matches, reference.match(first, second, min_scores))
    if min_scores is ANY_BEST and min(sizes) > 50:
        assert len(matches) > min(sizes) / 4


@pytest.mark.usefixtures("instruction_set")
def test_descriptor_match_prefers_the_lower_index_of_equal_scores() -> None:
    random = np.random.default_rng(0)
    first = descriptors(random, 40)
    matches = descriptor_match.match(first, np.concatenate([first, first]), ANY_BEST)
    assert matches.tolist() == [[i, i] for i in range(40)]
    matches = descriptor_match.match(np.concatenate([first, first]), first, ANY_BEST)
    assert matches.tolist() == [[i, i] for i in range(40)]
    assert len(descriptor_match.match(first, np.concatenate([first, first]), RATIO)) == 0


@pytest.mark.usefixtures("instruction_set")
def test_descriptor_match_reaches_the_largest_score() -> None:
    """Scores of 65,535 and rows at the limit of a 16-bit index do not wrap around."""
    descriptor = np.zeros((1, 128), np.uint8)
    descriptor[0, :6] = [127, 127, 127, 127, 31, 7]
    descriptor[0, 6:15] = 1
    assert (descriptor.astype(int) ** 2).sum() == 65535
    above_limit = np.full(65536, 65536, np.uint32)
    at_limit = np.full(65536, 65535, np.uint32)
    assert descriptor_match.match(descriptor, descriptor, at_limit).tolist() == [[0, 0]]
    assert len(descriptor_match.match(descriptor, descriptor, above_limit)) == 0
    full_set = np.zeros((65535, 128), np.uint8)
    full_set[-1] = descriptor
    assert descriptor_match.match(full_set, descriptor, at_limit).tolist() == [[65534, 0]]
    assert descriptor_match.match(descriptor, full_set, at_limit).tolist() == [[0, 65534]]


@pytest.mark.usefixtures("instruction_set")
def test_descriptor_match_rejects_overflow() -> None:
    valid = np.full((2, 128), 22, np.uint8)
    for invalid, message in (
        (np.full((2, 128), 23, np.uint8), "second row 0 .* squared norm above 65535"),
        (np.eye(2, 128, dtype=np.uint8) * 128, "second row 0 has a value above 127"),
        (np.zeros((2, 64), np.uint8), r"second is not \(N, 128\)"),
        (np.zeros((65536, 128), np.uint8), "second has more than 65535"),
    ):
        with pytest.raises(ValueError, match=message):
            descriptor_match.match(valid, invalid, ANY_BEST)
    with pytest.raises(ValueError, match="required has 10 values"):
        descriptor_match.match(valid, valid, ANY_BEST[:10])
    assert len(descriptor_match.match(valid[:0], valid, ANY_BEST)) == 0
    assert len(descriptor_match.match(valid, valid[:0], ANY_BEST)) == 0
