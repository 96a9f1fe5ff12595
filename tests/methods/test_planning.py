"""Plans of trainings: gaussians, image size and looks for a budget."""

from lumigraph.methods import planning


def test_transparent_pixels_ask_for_no_gaussians() -> None:
    assert planning.gaussians_for(600, 100, 160_000, coverage=0.3) < 0.6 * planning.gaussians_for(600, 100, 160_000)


def test_gaussians_leave_looks_for_each_photo() -> None:
    seconds, photos, pixels = 60.0, 43, 130_000.0
    gaussians = planning.gaussians_for(seconds / 4, photos, pixels)
    assert gaussians < planning.gaussians_for(seconds, photos, pixels)
    assert planning.looks(seconds / 4, photos, pixels, gaussians) >= 0.99 * planning.FEWEST_LOOKS


def test_many_photos_and_few_seconds_reduce_the_photos() -> None:
    sizes = [(800, 600)] * 146
    side = planning.longest_side(sizes, 60, default_side=1000)
    assert planning.MIN_REDUCED_SIDE_PX <= side < 500
    assert planning.longest_side(sizes, 3_000, default_side=1000) == 800
    assert planning.longest_side([(1600, 1200)] * 20, 3_000, default_side=1000) == 1000


def test_speed_is_a_plausible_share_of_the_reference() -> None:
    assert 0.001 < planning.relative_speed("cpu") < 100
    assert planning.relative_speed("cuda") == 1
