"""Commands and frames of a live view: what is allowed comes back the same, anything else is a typed error."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumigraph.wire.live import (
    MAX_COMMAND_BYTES,
    Ack,
    Camera,
    Command,
    CommandDone,
    CommandError,
    FlyTo,
    FrameHeader,
    Move,
    RenderFrame,
    SetOutput,
    pack_frame,
    read_command,
    read_reply,
    unpack_frame,
)
from lumigraph.wire.pipe import (
    Envelope,
    FrameCredit,
    RendererMessage,
    ViewerCommand,
    ViewerJoined,
    ViewerLeft,
    decode_renderer_message,
    decode_viewer_message,
    encode_renderer_message,
    encode_viewer_message,
    parse_length,
)

HERE, THERE = (1.0, 2.0, 3.0), (0.0, 0.0, 0.5)
COMMANDS: list[Command] = [
    Move(position=HERE, look_at=THERE, up=(0, 1, 0), fov=50, seq=7, id="a"),
    Move(position=HERE, look_at=THERE),
    FlyTo(position=HERE, look_at=THERE, duration=2.5, easing="linear"),
    RenderFrame(position=HERE, look_at=THERE, size=(16, 4096), output="normal", id="b"),
    SetOutput(output="depth", size=(640, 480)),
    Ack(frame=12),
]
CAMERA = Camera(position=HERE, look_at=THERE, up=(0, 1, 0), fov=50)
MOVE = {"kind": "move", "position": [1, 2, 3], "look_at": [0, 0, 0]}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_comes_back_as_it_was(command: Move | FlyTo | RenderFrame | SetOutput | Ack) -> None:
    assert read_command(command.model_dump_json()) == command
    assert read_command(command.model_dump_json(exclude_none=True)) == command


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "explode"}, "explode"),
        ({"version": 2}, "version"),
        ({"position": [1, 2]}, "position"),
        ({"position": [1, 2, 1e10]}, "position"),
        ({"position": [1, 2, "3"]}, "position"),
        ({"position": [0, 0, 0]}, "look at its own position"),
        ({"up": [0, 0, 0]}, "up must not be the zero vector"),
        ({"fov": 171}, "fov"),
        ({"fov": 0.5}, "fov"),
        ({"seq": -1}, "seq"),
        ({"more": 1}, "more"),
        ({"kind": "fly_to", "duration": 61}, "duration"),
        ({"kind": "fly_to", "easing": "bounce"}, "easing"),
        ({"kind": "render_frame", "size": [15, 100]}, "size"),
        ({"kind": "render_frame", "size": [100, 4097]}, "size"),
        ({"kind": "render_frame", "output": "alpha"}, "output"),
    ],
)
def test_what_is_wrong_is_said_to_its_sender(change: dict[str, object], said: str) -> None:
    assert not isinstance(read_command(json.dumps(MOVE)), CommandError)
    answer = read_command(json.dumps({**MOVE, "id": "mine", **change}))
    assert isinstance(answer, CommandError)
    assert (answer.code, answer.id) == ("bad_message", "mine")
    assert said in answer.message


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "null", "true"])
def test_numbers_are_finite(number: str) -> None:
    answer = read_command(json.dumps(MOVE).replace("2", number))
    assert isinstance(answer, CommandError)
    assert answer.code == "bad_message"


@pytest.mark.parametrize("message", ["", "{", "[]", "7", "null", '"move"', "\x00", "[" * 9000, '{"kind":["move"]}'])
def test_what_is_no_command_is_an_error(message: str) -> None:
    answer = read_command(message)
    assert isinstance(answer, CommandError)
    assert (answer.code, answer.id) == ("bad_message", None)


def test_a_command_is_short_and_text() -> None:
    padded = json.dumps(MOVE).ljust(MAX_COMMAND_BYTES)
    assert isinstance(read_command(padded), Move)
    for long in (padded + " ", "€" * (MAX_COMMAND_BYTES // 2), b"x" * (MAX_COMMAND_BYTES + 1)):
        answer = read_command(long)
        assert isinstance(answer, CommandError)
        assert answer.code == "too_large"
    answer = read_command(json.dumps(MOVE).encode())
    assert isinstance(answer, CommandError)
    assert "text" in answer.message


@given(st.text() | st.binary() | st.recursive(st.floats() | st.text(), lambda x: st.lists(x)).map(json.dumps))
@settings(max_examples=50, deadline=None)
def test_nothing_is_raised_whatever_comes(message: str | bytes) -> None:
    assert isinstance(read_command(message), CommandError)


def test_a_frame_is_its_header_and_its_picture() -> None:
    header = FrameHeader(
        frame=3, width=320, height=240, sharp=False, output="rgb", camera=CAMERA, seq=9, by=1, render_ms=7.5
    )
    message = pack_frame(header, b"\xff\xd8 a picture")
    length = int.from_bytes(message[:4], "little")
    assert json.loads(message[4 : 4 + length])["seq"] == 9
    assert message[4 + length :] == b"\xff\xd8 a picture"
    assert unpack_frame(message) == (header, b"\xff\xd8 a picture")
    for cut in (0, 3, 4, 20):
        with pytest.raises(ValueError):
            unpack_frame(message[:cut])
    with pytest.raises(ValueError, match="no header of"):
        unpack_frame(b"\xff\xff\xff\xff" + message[4:])


def test_replies_are_read_by_their_kind() -> None:
    for reply in (CommandDone(id="x", command="move"), CommandError(code="busy", message="later")):
        assert read_reply(reply.model_dump_json(exclude_none=True)) == reply
    with pytest.raises(ValueError):
        read_reply('{"kind":"frame"}')


@pytest.mark.parametrize(
    "message",
    [ViewerJoined(viewer=1), ViewerLeft(viewer=1), FrameCredit(), ViewerCommand(viewer=2, command=COMMANDS[0])],
)
def test_what_goes_through_the_pipe_comes_out_of_it(message: RendererMessage) -> None:
    sent = encode_renderer_message(message)
    assert parse_length(sent[:4]) == len(sent) - 4
    assert decode_renderer_message(sent[4:]) == message
    assert decode_viewer_message(encode_viewer_message(Envelope(viewer=2, text=True), b"body")[4:]) == (
        Envelope(viewer=2, text=True),
        b"body",
    )


def test_a_pipe_carries_no_endless_message() -> None:
    with pytest.raises(ValueError, match="the limit is"):
        parse_length(b"\xff\xff\xff\xff")
