"""What is rendered next, and for whom: by a clock that stands still unless it is told."""

import math

import pytest

from lumigraph.live.camera_animation import between
from lumigraph.live.resolution import SCALES, Pace, scaled
from lumigraph.live.session import FRAME, REST, Session, Work
from lumigraph.wire.live import Camera, CommandDone, CommandError, FlyTo, Hello, Move, RenderFrame, SetOutput
from tests.live.camera import CAMERA

FULL = (640, 480)


def move(x: float, seq: int | None = None, id: str | None = None) -> Move:
    return Move(position=(x, 0.0, -5.0), look_at=(0.0, 0.0, 0.0), seq=seq, id=id)


def resting(seconds: float = 0.01) -> Session:
    """A session that one viewer watches, and whose picture is sharp."""
    session = Session(CAMERA, FULL)
    session.joined(1)
    session.replies.clear()
    for _ in range(20):
        work = session.work(-10.0)
        if work is None:
            return session
        give(session, work, seconds)
    raise AssertionError("it never rests")


def give(session: Session, work: Work, seconds: float = 0.01) -> None:
    session.finished(work, seconds)
    session.ready()


def test_nothing_is_rendered_where_nobody_watches() -> None:
    session = Session(CAMERA, FULL)
    session.take(1, move(1), 0.0)
    assert session.work(0.0) is None
    assert session.wake(0.0) is None


def test_the_first_picture_is_coarse_and_the_next_sharp() -> None:
    session = Session(CAMERA, FULL, method="some", box=[[-1, -1, -1], [1, 1, 1]])
    session.joined(4)
    ((viewer, hello),) = session.replies
    assert viewer == 4
    assert hello == Hello(
        viewer=4, method="some", box=((-1, -1, -1), (1, 1, 1)), camera=CAMERA, size=FULL, output="rgb"
    )
    work = session.work(0.0)
    assert work is not None
    assert (work.size, work.sharp, work.camera) == ((80, 60), False, CAMERA)
    give(session, work)
    work = session.work(0.0)
    assert work is not None
    assert (work.size, work.sharp) == (FULL, True)


def test_nothing_is_rendered_where_nothing_changes() -> None:
    session = resting()
    for now in (0.0, 1.0, 1e6):
        assert session.work(now) is None
        assert session.wake(now) is None
    session.take(1, Move(position=CAMERA.position, look_at=CAMERA.look_at), 1e6)
    session.take(1, SetOutput(size=FULL, output="rgb"), 1e6)
    assert session.work(1e6) is None


def test_coarse_while_it_moves_and_sharp_once_it_rests() -> None:
    session = resting(seconds=0.5)
    session.take(1, move(1, seq=5), 0.0)
    work = session.work(0.0)
    assert work is not None
    assert (work.sharp, work.seq, work.by, work.camera.position) == (False, 5, 1, (1.0, 0.0, -5.0))
    assert work.size < FULL
    give(session, work, 0.04)
    assert session.work(0.1) is None
    assert session.wake(0.1) == pytest.approx(REST - 0.1)
    work = session.work(REST)
    assert work is not None
    assert (work.sharp, work.size, work.seq) == (True, FULL, 5)
    give(session, work, 0.5)
    assert session.work(1.0) is None


def test_the_newest_camera_wins() -> None:
    session = resting()
    first = move(0.5, seq=0)
    session.take(1, first, 0.0)
    work = session.work(0.0)
    assert work is not None
    for seq in range(1, 50):  # while it is being rendered
        session.take(1 + seq % 2, move(seq, seq=seq), 0.001 * seq)
    give(session, work)
    work = session.work(0.06)
    assert work is not None
    assert (work.camera.position[0], work.seq, work.by) == (49.0, 49, 2)
    give(session, work)
    assert session.work(0.1) is None


def test_frames_for_all_keep_a_distance_and_wait_for_somebody_ready() -> None:
    session = resting()
    session.take(1, move(1), 0.0)
    work = session.work(0.0)
    assert work is not None
    session.finished(work, 0.001)
    session.take(1, move(2), 0.01)
    assert session.work(0.05) is None
    assert session.wake(0.05) is None  # nobody is ready
    session.ready()
    assert session.work(0.02) is None
    assert session.wake(0.02) == pytest.approx(FRAME - 0.02)
    assert session.work(FRAME) is not None


def test_a_flight_passes_the_middle_and_ends_at_its_end() -> None:
    session = resting()
    session.take(1, Move(position=(0.0, 0.0, -5.0), look_at=(0.0, 0.0, 0.0), up=(0, -1, 0), fov=40), 0.0)
    end = FlyTo(position=(10.0, 0.0, -5.0), look_at=(10.0, 0.0, 0.0), fov=60, duration=2.0, id="there")
    session.take(1, end, 1.0)
    for now, x in ((1.0, 0.0), (1.5, 1.5625), (2.0, 5.0), (2.5, 8.4375)):  # 3 s^2 - 2 s^3
        session.work(now)
        assert session.camera.position == pytest.approx((x, 0.0, -5.0))
        assert session.camera.look_at == pytest.approx((x, 0.0, 0.0))
        assert session.camera.fov == pytest.approx(40 + 2 * x)
        session.ready()
    assert session.replies == []
    assert session.wake(2.6) is not None
    work = session.work(3.2)
    assert session.camera == Camera(position=end.position, look_at=end.look_at, up=(0, -1, 0), fov=60)
    assert session.replies == [(1, CommandDone(id="there", command="fly_to"))]
    assert work is not None
    assert work.sharp
    assert work.begun == 3.2


def test_a_flight_keeps_the_camera_moving_without_commands() -> None:
    session = resting()
    session.take(1, FlyTo(position=(9, 0, 0), look_at=(0, 0, 0), duration=1.0, easing="linear"), 0.0)
    pictures = []
    for frame in range(40):
        work = session.work(frame * 0.04)
        if work is not None:
            pictures.append(work)
            give(session, work)
    assert [work.sharp for work in pictures[:25]] == [False] * 25
    assert [work.sharp for work in pictures].count(True) == 1
    assert session.camera.position == (9.0, 0.0, 0.0)


def test_another_camera_takes_over_from_a_flight() -> None:
    session = resting()
    session.take(1, FlyTo(position=(9, 0, 0), look_at=(0, 0, 0), duration=1.0, id="f"), 0.0)
    session.joined(2)
    session.replies.clear()
    session.take(2, move(3, id="m"), 0.5)
    assert session.camera.position == (3.0, 0.0, -5.0)
    (to_first, superseded), (to_second, done) = session.replies
    assert (to_first, to_second) == (1, 2)
    assert isinstance(superseded, CommandError)
    assert (superseded.code, superseded.id) == ("superseded", "f")
    assert done == CommandDone(id="m", command="move")
    session.work(2.0)
    assert session.camera.position == (3.0, 0.0, -5.0)


def test_a_flight_of_no_time_has_arrived() -> None:
    session = resting()
    session.take(1, FlyTo(position=(9, 0, 0), look_at=(0, 0, 0), duration=0.0, id="f"), 0.0)
    assert session.camera.position == (9.0, 0.0, 0.0)
    assert session.replies == [(1, CommandDone(id="f", command="fly_to"))]


def test_one_frame_for_the_asker_alone() -> None:
    session = resting()
    asked = RenderFrame(position=(9, 0, 0), look_at=(0, 0, 0), size=(100, 50), output="depth", id="q")
    session.take(1, asked, 0.0)
    work = session.work(0.0)
    assert work is not None
    assert (work.asker, work.id, work.size, work.output, work.sharp) == (1, "q", (100, 50), "depth", True)
    assert work.camera == Camera(position=(9, 0, 0), look_at=(0, 0, 0), up=CAMERA.up, fov=CAMERA.fov)
    session.finished(work, 0.01)
    assert session.camera == CAMERA
    assert session.work(1.0) is None


def test_an_asker_has_one_request_at_a_time() -> None:
    session = resting()
    for number in range(3):
        session.take(1, RenderFrame(position=(9, 0, number), look_at=(0, 0, 9), id=str(number)), 0.0)
    errors = [reply for _, reply in session.replies if isinstance(reply, CommandError)]
    assert [(error.id, error.code) for error in errors] == [("0", "superseded"), ("1", "superseded")]
    work = session.work(0.0)
    assert work is not None
    assert work.id == "2"


def test_a_request_that_would_hold_up_everybody_is_refused() -> None:
    session = resting()
    session.pace = Pace(measured=[5e-6])  # seconds a pixel
    asked = RenderFrame(position=(9, 0, 0), look_at=(0, 0, 9), size=(4096, 4096), id="huge")
    session.take(1, asked, 0.0)
    session.take(2, asked.model_copy(update={"size": (640, 480), "id": "fine"}), 0.0)
    work = session.work(0.0)
    assert work is not None
    assert work.id == "fine"
    ((viewer, error),) = session.replies
    assert isinstance(error, CommandError)
    assert (viewer, error.id, error.code) == (1, "huge", "render_failed")
    assert "about 84 s" in error.message


def test_askers_and_the_others_take_turns() -> None:
    session = resting()
    kinds = []
    for i in range(6):
        session.take(1, RenderFrame(position=(9, 0, 0), look_at=(0, 0, 9)), 0.1 * i)
        session.take(1, move(i + 1), 0.1 * i)
        work = session.work(0.1 * i)
        assert work is not None
        kinds.append(work.asker)
        give(session, work)
    assert kinds.count(1) == kinds.count(None) == 3


def test_another_output_or_size_at_rest_is_sharp_at_once() -> None:
    session = resting()
    session.take(1, SetOutput(output="depth", size=(320, 240), id="s"), 0.0)
    assert session.replies == [(1, CommandDone(id="s", command="set"))]
    work = session.work(0.0)
    assert work is not None
    assert (work.output, work.size, work.sharp) == ("depth", (320, 240), True)
    give(session, work)
    session.replaced([[0, 0, 0], [2, 2, 2]])
    work = session.work(0.1)
    assert work is not None
    assert work.sharp


def test_what_failed_is_not_tried_again_until_something_changes() -> None:
    session = resting()
    session.take(1, move(1), 0.0)
    work = session.work(0.0)
    assert work is not None
    session.finished(work, None)
    assert session.work(1.0) is None
    session.take(1, move(2), 2.0)
    assert session.work(2.0) is not None


def test_an_output_that_fails_gives_way_to_colours() -> None:
    session = resting()
    session.take(1, SetOutput(output="depth"), 0.0)
    work = session.work(0.0)
    assert work is not None
    session.finished(work, None)
    work = session.work(1.0)
    assert work is not None
    assert work.output == "rgb"


# -- pace


@pytest.mark.parametrize("rate", [1e-9, 3e-7, 1e-6, 1e-5, 1e-4])
def test_the_pace_finds_the_finest_level_that_is_in_time(rate: float) -> None:
    """Seconds a picture: 3 ms and `rate` a pixel."""
    pace, sizes = Pace(), []
    for _ in range(20):
        size = scaled(FULL, pace.moving)
        sizes.append(size)
        pace.took(size, FULL, 0.003 + rate * size[0] * size[1])
    assert len(set(sizes[10:])) == 1  # it has settled
    cost = 0.003 + rate * math.prod(sizes[-1])
    assert cost <= pace.coarse_seconds or sizes[-1] == scaled(FULL, len(SCALES) - 1)
    if pace.moving > 0:
        assert 0.003 + rate * math.prod(scaled(FULL, pace.moving - 1)) > 0.6 * pace.coarse_seconds


def test_one_late_picture_is_no_reason_to_become_coarse() -> None:
    pace = Pace(moving=0)
    for seconds in (0.01, 0.01, 1.0, 0.01):
        pace.took(FULL, FULL, seconds)
        assert pace.moving == 0
    pace.took(FULL, FULL, 1.0)
    pace.took(FULL, FULL, 1.0)
    assert pace.moving > 2


def test_a_slow_scene_is_as_sharp_as_patience_allows() -> None:
    session = Session(CAMERA, FULL)
    session.joined(1)
    sizes = []
    while (work := session.work(0.0)) is not None:
        sizes.append(work.size)
        give(session, work, 0.5 + 2e-5 * math.prod(work.size))  # six seconds at full size
        assert len(sizes) < 12
    assert sizes == sorted(sizes)
    assert 0.5 + 2e-5 * math.prod(sizes[-1]) <= session.pace.sharp_seconds
    assert sizes[-1] >= (213, 160)


# -- between two cameras


def camera(position: tuple[float, float, float], look_at: tuple[float, float, float]) -> Camera:
    return Camera(position=position, look_at=look_at, up=(0, -1, 0), fov=40)


def test_to_the_other_side_of_a_thing_leads_around_it() -> None:
    middle = between(camera((0, 0, -4), (0, 0, 0)), camera((0, 0, 4), (0, 0, 0)), 0.5)
    assert math.dist(middle.position, (0, 0, 0)) == pytest.approx(4)
    assert middle.position[1] == pytest.approx(0)  # about the up axis


def test_looking_around_stays_where_it_is() -> None:
    for share in (0.0, 0.3, 0.5, 1.0):
        now = between(camera((1, 2, 3), (1, 2, 5)), camera((1, 2, 3), (3, 2, 3)), share)
        assert now.position == pytest.approx((1, 2, 3))
        assert math.dist(now.look_at, now.position) == pytest.approx(2)
    half = between(camera((1, 2, 3), (1, 2, 5)), camera((1, 2, 3), (3, 2, 3)), 0.5)
    assert half.look_at == pytest.approx((1 + math.sqrt(2), 2, 3 + math.sqrt(2)))


def test_going_nearer_goes_straight() -> None:
    half = between(camera((0, 0, -8), (0, 0, 0)), camera((0, 0, -2), (0, 0, 0)), 0.5)
    assert half.position == pytest.approx((0, 0, -4))  # by even factors, as zooming is seen
