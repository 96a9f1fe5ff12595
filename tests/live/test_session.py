"""The schedule of a live session, with a manual clock."""

import math

import pytest

from lumigraph.live.camera_animation import interpolate
from lumigraph.live.resolution import SCALES, AdaptiveResolution, scale_size
from lumigraph.live.session import FRAME_INTERVAL_S, REST_DELAY_S, FrameTask, Session
from lumigraph.wire.live import Camera, CommandDone, CommandError, FlyTo, Hello, Move, RenderFrame, SetOutput
from tests.live.camera import CAMERA

FULL = (640, 480)


def move(x: float, seq: int | None = None, id: str | None = None) -> Move:
    return Move(position=(x, 0.0, -5.0), look_at=(0.0, 0.0, 0.0), seq=seq, id=id)


def resting_session(seconds: float = 0.01) -> Session:
    """Return a session with one viewer and a sharp frame."""
    session = Session(CAMERA, FULL)
    session.add_viewer(1)
    session.replies.clear()
    for _ in range(20):
        task = session.next_task(-10.0)
        if task is None:
            return session
        finish(session, task, seconds)
    raise AssertionError("the session never rests")


def finish(session: Session, task: FrameTask, seconds: float = 0.01) -> None:
    session.finish_task(task, seconds)
    session.mark_ready()


def test_session_idles_without_viewers() -> None:
    session = Session(CAMERA, FULL)
    session.handle_command(1, move(1), 0.0)
    assert session.next_task(0.0) is None
    assert session.seconds_until_due(0.0) is None


def test_session_first_frame_is_coarse() -> None:
    session = Session(CAMERA, FULL, method="some", box=[[-1, -1, -1], [1, 1, 1]])
    session.add_viewer(4)
    ((viewer, hello),) = session.replies
    assert viewer == 4
    assert hello == Hello(
        viewer=4, method="some", box=((-1, -1, -1), (1, 1, 1)), camera=CAMERA, size=FULL, output="rgb"
    )
    task = session.next_task(0.0)
    assert task is not None
    assert (task.size, task.sharp, task.camera) == ((80, 60), False, CAMERA)
    finish(session, task)
    task = session.next_task(0.0)
    assert task is not None
    assert (task.size, task.sharp) == (FULL, True)


def test_session_idles_without_changes() -> None:
    session = resting_session()
    for now in (0.0, 1.0, 1e6):
        assert session.next_task(now) is None
        assert session.seconds_until_due(now) is None
    session.handle_command(1, Move(position=CAMERA.position, look_at=CAMERA.look_at), 1e6)
    session.handle_command(1, SetOutput(size=FULL, output="rgb"), 1e6)
    assert session.next_task(1e6) is None


def test_session_sharpens_at_rest() -> None:
    session = resting_session(seconds=0.5)
    session.handle_command(1, move(1, seq=5), 0.0)
    task = session.next_task(0.0)
    assert task is not None
    assert (task.sharp, task.seq, task.by, task.camera.position) == (False, 5, 1, (1.0, 0.0, -5.0))
    assert task.size < FULL
    finish(session, task, 0.04)
    assert session.next_task(0.1) is None
    assert session.seconds_until_due(0.1) == pytest.approx(REST_DELAY_S - 0.1)
    task = session.next_task(REST_DELAY_S)
    assert task is not None
    assert (task.sharp, task.size, task.seq) == (True, FULL, 5)
    finish(session, task, 0.5)
    assert session.next_task(1.0) is None


def test_session_newest_camera_wins() -> None:
    session = resting_session()
    first = move(0.5, seq=0)
    session.handle_command(1, first, 0.0)
    task = session.next_task(0.0)
    assert task is not None
    for seq in range(1, 50):  # during the render
        session.handle_command(1 + seq % 2, move(seq, seq=seq), 0.001 * seq)
    finish(session, task)
    task = session.next_task(0.06)
    assert task is not None
    assert (task.camera.position[0], task.seq, task.by) == (49.0, 49, 2)
    finish(session, task)
    assert session.next_task(0.1) is None


def test_session_frame_interval_and_readiness() -> None:
    session = resting_session()
    session.handle_command(1, move(1), 0.0)
    task = session.next_task(0.0)
    assert task is not None
    session.finish_task(task, 0.001)
    session.handle_command(1, move(2), 0.01)
    assert session.next_task(0.05) is None
    assert session.seconds_until_due(0.05) is None  # no viewer is ready
    session.mark_ready()
    assert session.next_task(0.02) is None
    assert session.seconds_until_due(0.02) == pytest.approx(FRAME_INTERVAL_S - 0.02)
    assert session.next_task(FRAME_INTERVAL_S) is not None


def test_session_animation_path() -> None:
    session = resting_session()
    session.handle_command(1, Move(position=(0.0, 0.0, -5.0), look_at=(0.0, 0.0, 0.0), up=(0, -1, 0), fov=40), 0.0)
    end = FlyTo(position=(10.0, 0.0, -5.0), look_at=(10.0, 0.0, 0.0), fov=60, duration=2.0, id="there")
    session.handle_command(1, end, 1.0)
    for now, x in ((1.0, 0.0), (1.5, 1.5625), (2.0, 5.0), (2.5, 8.4375)):  # 3 s^2 - 2 s^3
        session.next_task(now)
        assert session.camera.position == pytest.approx((x, 0.0, -5.0))
        assert session.camera.look_at == pytest.approx((x, 0.0, 0.0))
        assert session.camera.fov == pytest.approx(40 + 2 * x)
        session.mark_ready()
    assert session.replies == []
    assert session.seconds_until_due(2.6) is not None
    task = session.next_task(3.2)
    assert session.camera == Camera(position=end.position, look_at=end.look_at, up=(0, -1, 0), fov=60)
    assert session.replies == [(1, CommandDone(id="there", command="fly_to"))]
    assert task is not None
    assert task.sharp
    assert task.start_time == 3.2


def test_session_animation_renders_without_commands() -> None:
    session = resting_session()
    session.handle_command(1, FlyTo(position=(9, 0, 0), look_at=(0, 0, 0), duration=1.0, easing="linear"), 0.0)
    tasks = []
    for frame in range(40):
        task = session.next_task(frame * 0.04)
        if task is not None:
            tasks.append(task)
            finish(session, task)
    assert [task.sharp for task in tasks[:25]] == [False] * 25
    assert [task.sharp for task in tasks].count(True) == 1
    assert session.camera.position == (9.0, 0.0, 0.0)


def test_session_move_supersedes_animation() -> None:
    session = resting_session()
    session.handle_command(1, FlyTo(position=(9, 0, 0), look_at=(0, 0, 0), duration=1.0, id="f"), 0.0)
    session.add_viewer(2)
    session.replies.clear()
    session.handle_command(2, move(3, id="m"), 0.5)
    assert session.camera.position == (3.0, 0.0, -5.0)
    (to_first, error), (to_second, reply) = session.replies
    assert (to_first, to_second) == (1, 2)
    assert isinstance(error, CommandError)
    assert (error.code, error.id) == ("superseded", "f")
    assert reply == CommandDone(id="m", command="move")
    session.next_task(2.0)
    assert session.camera.position == (3.0, 0.0, -5.0)


def test_session_animation_of_zero_duration() -> None:
    session = resting_session()
    session.handle_command(1, FlyTo(position=(9, 0, 0), look_at=(0, 0, 0), duration=0.0, id="f"), 0.0)
    assert session.camera.position == (9.0, 0.0, 0.0)
    assert session.replies == [(1, CommandDone(id="f", command="fly_to"))]


def test_session_render_frame_is_private() -> None:
    session = resting_session()
    request = RenderFrame(position=(9, 0, 0), look_at=(0, 0, 0), size=(100, 50), output="depth", id="q")
    session.handle_command(1, request, 0.0)
    task = session.next_task(0.0)
    assert task is not None
    assert (task.requester, task.id, task.size, task.output, task.sharp) == (1, "q", (100, 50), "depth", True)
    assert task.camera == Camera(position=(9, 0, 0), look_at=(0, 0, 0), up=CAMERA.up, fov=CAMERA.fov)
    session.finish_task(task, 0.01)
    assert session.camera == CAMERA
    assert session.next_task(1.0) is None


def test_session_render_frame_supersedes_older() -> None:
    session = resting_session()
    for number in range(3):
        session.handle_command(1, RenderFrame(position=(9, 0, number), look_at=(0, 0, 9), id=str(number)), 0.0)
    errors = [reply for _, reply in session.replies if isinstance(reply, CommandError)]
    assert [(error.id, error.code) for error in errors] == [("0", "superseded"), ("1", "superseded")]
    task = session.next_task(0.0)
    assert task is not None
    assert task.id == "2"


def test_session_rejects_slow_request() -> None:
    session = resting_session()
    session.resolution = AdaptiveResolution(pixel_seconds=[5e-6])  # seconds per pixel
    request = RenderFrame(position=(9, 0, 0), look_at=(0, 0, 9), size=(4096, 4096), id="huge")
    session.handle_command(1, request, 0.0)
    session.handle_command(2, request.model_copy(update={"size": (640, 480), "id": "fine"}), 0.0)
    task = session.next_task(0.0)
    assert task is not None
    assert task.id == "fine"
    ((viewer, error),) = session.replies
    assert isinstance(error, CommandError)
    assert (viewer, error.id, error.code) == (1, "huge", "render_failed")
    assert "about 84 s" in error.message


def test_session_alternates_requests_and_shared_frames() -> None:
    session = resting_session()
    requesters = []
    for i in range(6):
        session.handle_command(1, RenderFrame(position=(9, 0, 0), look_at=(0, 0, 9)), 0.1 * i)
        session.handle_command(1, move(i + 1), 0.1 * i)
        task = session.next_task(0.1 * i)
        assert task is not None
        requesters.append(task.requester)
        finish(session, task)
    assert requesters.count(1) == requesters.count(None) == 3


def test_session_new_output_is_sharp_at_rest() -> None:
    session = resting_session()
    session.handle_command(1, SetOutput(output="depth", size=(320, 240), id="s"), 0.0)
    assert session.replies == [(1, CommandDone(id="s", command="set"))]
    task = session.next_task(0.0)
    assert task is not None
    assert (task.output, task.size, task.sharp) == ("depth", (320, 240), True)
    finish(session, task)
    session.set_scene([[0, 0, 0], [2, 2, 2]])
    task = session.next_task(0.1)
    assert task is not None
    assert task.sharp


def test_session_failure_waits_for_change() -> None:
    session = resting_session()
    session.handle_command(1, move(1), 0.0)
    task = session.next_task(0.0)
    assert task is not None
    session.finish_task(task, None)
    assert session.next_task(1.0) is None
    session.handle_command(1, move(2), 2.0)
    assert session.next_task(2.0) is not None


def test_session_failed_output_falls_back_to_rgb() -> None:
    session = resting_session()
    session.handle_command(1, SetOutput(output="depth"), 0.0)
    task = session.next_task(0.0)
    assert task is not None
    session.finish_task(task, None)
    task = session.next_task(1.0)
    assert task is not None
    assert task.output == "rgb"


# -- resolution


@pytest.mark.parametrize("rate", [1e-9, 3e-7, 1e-6, 1e-5, 1e-4])
def test_resolution_converges_to_finest_level(rate: float) -> None:
    """A frame takes 3 ms plus `rate` seconds per pixel."""
    resolution, sizes = AdaptiveResolution(), []
    for _ in range(20):
        size = scale_size(FULL, resolution.moving_level)
        sizes.append(size)
        resolution.record(size, FULL, 0.003 + rate * size[0] * size[1])
    assert len(set(sizes[10:])) == 1  # the size is constant
    frame_seconds = 0.003 + rate * math.prod(sizes[-1])
    assert frame_seconds <= resolution.coarse_seconds or sizes[-1] == scale_size(FULL, len(SCALES) - 1)
    if resolution.moving_level > 0:
        assert 0.003 + rate * math.prod(scale_size(FULL, resolution.moving_level - 1)) > 0.6 * resolution.coarse_seconds


def test_resolution_ignores_one_slow_frame() -> None:
    resolution = AdaptiveResolution(moving_level=0)
    for seconds in (0.01, 0.01, 1.0, 0.01):
        resolution.record(FULL, FULL, seconds)
        assert resolution.moving_level == 0
    resolution.record(FULL, FULL, 1.0)
    resolution.record(FULL, FULL, 1.0)
    assert resolution.moving_level > 2


def test_session_slow_scene_refines_to_time_limit() -> None:
    session = Session(CAMERA, FULL)
    session.add_viewer(1)
    sizes = []
    while (task := session.next_task(0.0)) is not None:
        sizes.append(task.size)
        finish(session, task, 0.5 + 2e-5 * math.prod(task.size))  # six seconds at full size
        assert len(sizes) < 12
    assert sizes == sorted(sizes)
    assert 0.5 + 2e-5 * math.prod(sizes[-1]) <= session.resolution.sharp_seconds
    assert sizes[-1] >= (213, 160)


# -- interpolate two cameras


def camera(position: tuple[float, float, float], look_at: tuple[float, float, float]) -> Camera:
    return Camera(position=position, look_at=look_at, up=(0, -1, 0), fov=40)


def test_interpolate_moves_around_target() -> None:
    middle = interpolate(camera((0, 0, -4), (0, 0, 0)), camera((0, 0, 4), (0, 0, 0)), 0.5)
    assert math.dist(middle.position, (0, 0, 0)) == pytest.approx(4)
    assert middle.position[1] == pytest.approx(0)  # about the up axis


def test_interpolate_turns_in_place() -> None:
    for share in (0.0, 0.3, 0.5, 1.0):
        now = interpolate(camera((1, 2, 3), (1, 2, 5)), camera((1, 2, 3), (3, 2, 3)), share)
        assert now.position == pytest.approx((1, 2, 3))
        assert math.dist(now.look_at, now.position) == pytest.approx(2)
    middle = interpolate(camera((1, 2, 3), (1, 2, 5)), camera((1, 2, 3), (3, 2, 3)), 0.5)
    assert middle.look_at == pytest.approx((1 + math.sqrt(2), 2, 3 + math.sqrt(2)))


def test_interpolate_moves_straight_towards_target() -> None:
    middle = interpolate(camera((0, 0, -8), (0, 0, 0)), camera((0, 0, -2), (0, 0, 0)), 0.5)
    assert middle.position == pytest.approx((0, 0, -4))  # by equal factors per time, as in a zoom
