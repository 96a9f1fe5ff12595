from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import pytest

from lumigraph.scene.errors import RunError
from lumigraph.studio.config_schema import describe, parse, resolve, settings, with_current_names
from lumigraph.studio.registry import method


@dataclass(frozen=True)
class Config:
    """Everything a setting may be.

    rate: how fast,
        in units a second
    """

    rate: float = 0.5
    count: int = 3
    on: bool = False
    mode: Literal["fast", "good"] = "fast"
    degree: Literal[0, 3] = 3
    limit: float | None = None
    name: str | None = None
    box: tuple[float, float] = (0.0, 1.0)
    levels: tuple[int, ...] = (1, 2)
    told: int = field(default=1, metadata={"doc": "said in the field"})

    def __post_init__(self) -> None:
        if self.rate <= 0:
            raise ValueError("rate must be positive")


def test_settings_carry_types_defaults_and_their_own_lines_of_documentation() -> None:
    found = {setting.name: setting for setting in settings(Config)}
    assert list(found) == ["rate", "count", "on", "mode", "degree", "limit", "name", "box", "levels", "told"]
    assert found["rate"].doc == "how fast, in units a second"
    assert found["told"].doc == "said in the field"
    assert found["count"].doc == ""
    assert found["limit"].kind == "float or none"
    assert found["mode"].kind == "fast|good"
    assert found["box"].kind == "float,float"
    assert found["levels"].kind == "int,..."


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("rate", "1e-3", 1e-3),
        ("rate", 2, 2.0),
        ("count", "7", 7),
        ("count", 7.0, 7),
        ("on", "yes", True),
        ("on", False, False),
        ("mode", "good", "good"),
        ("degree", "0", 0),
        ("limit", "none", None),
        ("limit", "2.5", 2.5),
        ("limit", None, None),
        ("name", "none", None),
        ("name", "x", "x"),
        ("box", "-1,2", (-1.0, 2.0)),
        ("box", [0, 4], (0.0, 4.0)),
        ("levels", "5", (5,)),
    ],
)
def test_values_from_text_and_from_json(name: str, value: object, expected: object) -> None:
    got = getattr(resolve(Config, {name: value}), name)
    assert got == expected
    assert type(got) is type(expected)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rate", "fast"),
        ("rate", "nan"),
        ("rate", "inf"),
        ("rate", True),
        ("count", "1.5"),
        ("count", 1.5),
        ("on", "maybe"),
        ("on", 1),
        ("mode", "best"),
        ("degree", "2"),
        ("box", "1"),
        ("box", "1,2,3"),
        ("box", 3),
        ("levels", "1,x"),
        ("name", 4),
    ],
)
def test_a_wrong_value_names_the_setting_and_its_type(name: str, value: object) -> None:
    with pytest.raises(RunError, match=rf"setting '{name}' must be"):
        resolve(Config, {name: value})


def test_an_unknown_setting_suggests_the_nearest() -> None:
    with pytest.raises(RunError, match="did you mean 'count'"):
        resolve(Config, {"cuont": "1"})
    with pytest.raises(RunError, match="settings: rate, count"):
        resolve(Config, {"zzz": "1"})


def test_dashes_are_underscores_and_the_config_has_the_last_word() -> None:
    @dataclass
    class Dashed:
        sh_degree: int = 1

    assert resolve(Dashed, {"sh-degree": "2"}).sh_degree == 2
    with pytest.raises(RunError, match="rate must be positive"):
        resolve(Config, {"rate": "-1"})


def test_an_unknown_type_is_refused_and_described() -> None:
    with pytest.raises(ValueError, match="x"):
        parse(complex, "x")
    assert describe(complex) == "complex"


@dataclass(frozen=True)
class RenamedConfig:
    RENAMED: ClassVar[dict[str, str | None]] = {"fade": "opacity_decay", "decay": None}
    opacity_decay: float = 0.5


def test_resolve_reads_former_names_and_ignores_removed_settings() -> None:
    assert resolve(RenamedConfig, {"fade": 0.1, "decay": 3}) == RenamedConfig(0.1)
    assert [(s.name, s.former_names) for s in settings(RenamedConfig)] == [("opacity_decay", ("fade",))]


def test_with_current_names_prefers_the_later_value() -> None:
    assert with_current_names(RenamedConfig, {"fade": 1, "opacity-decay": 2}) == {"opacity_decay": 2}
    assert with_current_names(RenamedConfig, {"opacity_decay": 2, "fade": 1}) == {"opacity_decay": 1}


@pytest.mark.parametrize("name", ["splat", "ngp", "nerf"])
def test_method_configs_rename_to_existing_settings(name: str) -> None:
    config = method(name).Config
    names = {setting.name for setting in settings(config)}
    assert {new for new in config.RENAMED.values() if new is not None} <= names
    assert not names & set(config.RENAMED)


def test_resolve_reads_the_settings_of_earlier_runs() -> None:
    stored = {"fade": 0.001, "coarse": 0.5, "ssim": 0.1, "square": 0.3, "backdrop": False}
    config = resolve(method("splat").Config, stored)
    assert (config.opacity_decay, config.resolution_schedule, config.ssim_weight) == (0.001, 0.5, 0.1)
    assert (config.mse_weight, config.random_background) == (0.3, False)
    stored = {"log2_entries": 12, "coarsest": 8, "finest": 64, "cells": 32, "cubes": 2, "fineness": 128, "sparse": 0.1}
    config = resolve(method("ngp").Config, stored | {"decay": 0.0})
    assert (config.log2_hashmap_size, config.base_resolution, config.max_resolution) == (12, 8, 64)
    assert (config.occupancy_grid, config.cascades, config.steps_per_diagonal) == (32, 2, 128)
    assert config.occupancy_threshold == 0.1
