"""Events are plain data: what goes down a line comes back the same, and nothing else comes in."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from lumigraph.wire.events import ArtifactWritten, CheckpointWritten, Event, Metrics, Note, Progress, from_line, to_line

count = st.floats(0, 1e12)
events = st.one_of(
    st.builds(
        Progress,
        stage=st.text(),
        done=count,
        total=st.none() | count,
        unit=st.text(),
        seconds_left=st.none() | count,
    ),
    st.builds(
        Metrics,
        step=st.integers(0, 2**53),
        seconds=count,
        values=st.dictionaries(st.text(), st.floats(allow_nan=False)),
    ),
    st.builds(CheckpointWritten, step=st.integers(0, 2**53), path=st.text()),
    st.builds(Note, text=st.text(), level=st.sampled_from(["info", "warning"])),
    st.builds(ArtifactWritten, path=st.text(), what=st.text(), sha256=st.none() | st.just("0f" * 32)),
)


@given(events)
@settings(max_examples=25, deadline=None)
def test_a_line_comes_back_as_the_event(event: Event) -> None:
    line = to_line(event)
    assert "\n" not in line
    assert from_line(line) == event


def test_a_diverged_loss_arrives_in_strict_json() -> None:
    line = to_line(Metrics(step=3, seconds=1.0, values={"loss": math.nan, "psnr": math.inf}))

    def refuse(constant: str) -> float:
        raise AssertionError(f"{constant} is not JSON")

    json.loads(line, parse_constant=refuse)
    back = from_line(line)
    assert isinstance(back, Metrics)
    assert math.isnan(back.values["loss"])
    assert back.values["psnr"] == math.inf


def test_an_event_does_not_change() -> None:
    with pytest.raises(ValidationError):
        Note(text="once said").text = "unsaid"


@pytest.mark.parametrize(
    "line",
    [
        "",
        "null",
        "[]",
        '{"text": "no kind"}',
        '{"kind": "rumour", "text": "no such kind"}',
        '{"kind": "note", "text": "x", "level": "panic"}',
        '{"kind": "note", "text": "x", "more": 1}',
        '{"kind": "progress", "stage": "x", "done": -1}',
        '{"kind": "progress", "stage": "x", "done": "NaN"}',
        '{"kind": "metrics", "step": -1, "seconds": 0, "values": {}}',
        '{"kind": "made", "path": "x", "what": "y", "sha256": "short"}',
    ],
)
def test_anything_else_is_refused(line: str) -> None:
    with pytest.raises(ValidationError):
        from_line(line)
