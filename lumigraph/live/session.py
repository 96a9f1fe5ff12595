"""State machine of a live view: which frame to render next, for which viewer, at which size. No clock, thread or pixel.

The owner of a session reports events (`add_viewer`, `handle_command`, `mark_ready`, `finish_task`) and fetches
`next_task`. `now` is in seconds of any monotonic clock. Replies to commands collect in `replies`.

All viewers share one camera. While it moves, frames are coarse and fast; after REST_DELAY_S without motion a sharp one
follows. Nothing is rendered if nothing changed, if there are no viewers, or if no viewer is ready for a frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from lumigraph.live.camera_animation import CameraAnimation
from lumigraph.live.resolution import AdaptiveResolution, scale_size
from lumigraph.wire.live import (
    Camera,
    CommandDone,
    CommandError,
    FlyTo,
    Hello,
    Move,
    Output,
    RenderFrame,
    Reply,
    SetOutput,
)

REST_DELAY_S = 0.15  # without a new camera, until the camera counts as resting
FRAME_INTERVAL_S = 1 / 30  # minimum between two shared frames
MAX_REQUEST_S = 60.0  # for one viewer's request: all other viewers wait meanwhile
Size = tuple[int, int]


@dataclass(frozen=True)
class FrameTask:
    """A frame to render: for all viewers if `requester` is None, else the answer to that viewer's request."""

    camera: Camera
    size: Size  # width, height
    output: Output
    sharp: bool
    start_time: float
    version: int = 0  # version of the session that the frame shows
    seq: int | None = None
    by: int | None = None
    requester: int | None = None
    id: str | None = None


@dataclass
class Session:
    """A camera shared by all viewers."""

    camera: Camera
    size: Size = (640, 480)  # width, height of a frame at rest
    output: Output = "rgb"
    method: str = ""
    box: Sequence[Sequence[float]] | None = None
    resolution: AdaptiveResolution = field(default_factory=AdaptiveResolution)
    viewers: set[int] = field(default_factory=set)
    replies: list[tuple[int, Reply]] = field(default_factory=list)  # (viewer, reply)

    _version: int = 1  # increases with each change that makes the last frame out of date
    _rendered_version: int = 0  # of the last shared frame
    _sharp_size: Size | None = None  # of the last shared frame, if it was a sharp one
    _is_ready: bool = True
    _last_motion: float = -math.inf
    _last_start: float = -math.inf  # start time of the last shared frame
    _seq: int | None = None
    _by: int | None = None
    _animation: tuple[CameraAnimation, int, str | None] | None = None  # with its viewer and the id of the command
    _requests: dict[int, RenderFrame] = field(default_factory=dict)
    _shared_first: bool = False  # a shared frame, if one is due, comes before the next request

    # -- events

    def add_viewer(self, viewer: int) -> None:
        self.viewers.add(viewer)
        self._greet(viewer)

    def remove_viewer(self, viewer: int) -> None:
        self.viewers.discard(viewer)
        self._requests.pop(viewer, None)

    def mark_ready(self) -> None:
        """A viewer can take another frame. A new session is ready."""
        self._is_ready = True

    def handle_command(self, viewer: int, command: Move | FlyTo | RenderFrame | SetOutput, now: float) -> None:
        """Apply a viewer's command. The newest wins: a command that it supersedes is answered with an error."""
        self._advance(now)
        if isinstance(command, RenderFrame):
            previous = self._requests.pop(viewer, None)
            if previous is not None:
                self._reply_superseded(viewer, previous.id, "a newer render_frame arrived before this one started")
            self._requests[viewer] = command
        elif isinstance(command, FlyTo):
            self._end_animation()
            end = self._complete_camera(command)
            animation = CameraAnimation(self.camera, end, now, command.duration, command.easing)
            self._animation = (animation, viewer, command.id)
            self._seq, self._by = None, viewer
            self._advance(now)
        elif isinstance(command, Move):
            self._end_animation()
            self._set_camera(self._complete_camera(command), now)
            self._seq, self._by = command.seq, viewer
            self._reply_done(viewer, command)
        else:
            size, output = command.size or self.size, command.output or self.output
            if (size, output) != (self.size, self.output):
                self.size, self.output = size, output
                self._version += 1
            self._reply_done(viewer, command)

    def set_scene(self, box: Sequence[Sequence[float]]) -> None:
        """The scene is loaded for the first time, or was replaced by a newer state; `box` is its bounding box."""
        is_first, self.box = self.box is None, box
        if is_first:
            for viewer in self.viewers:
                self._greet(viewer)
        self._version += 1

    def finish_task(self, task: FrameTask, seconds: float | None) -> None:
        """Record a rendered frame and its render time; None if it failed. Failures are retried only after a change."""
        if task.requester is None:
            self._rendered_version = task.version
            self._sharp_size = task.size if task.sharp else None
        if seconds is not None:
            self.resolution.record(task.size, self.size, seconds)
        elif task.requester is None:
            self._is_ready = True  # no viewer got a frame
            self._sharp_size = self.size
            if task.output == self.output != "rgb":  # every method renders rgb, but not every one depth
                self.output = "rgb"
                self._version += 1

    # -- schedule

    def next_task(self, now: float) -> FrameTask | None:
        """The frame to render now. Shared frames and single requests alternate."""
        self._advance(now)
        shared_task = self._shared_task(now)
        while self._requests and not (shared_task is not None and self._shared_first):
            single = self._request_task(now)
            if single is not None:
                self._shared_first = True
                return single
        if shared_task is not None:
            self._shared_first, self._is_ready, self._last_start = False, False, now
        return shared_task

    def seconds_until_due(self, now: float) -> float | None:
        """Seconds until a frame may be due without any new event; None: never."""
        due = []
        if self._requests:
            due.append(now)
        if self._animation is not None:
            due.append(self._animation[0].end_time)
        if self.viewers and self._is_ready:
            if self._animation is not None or self._version != self._rendered_version:
                due.append(self._last_start + FRAME_INTERVAL_S)
            elif self._can_refine():
                due.append(self._last_motion + REST_DELAY_S)
        return max(0.0, min(due) - now) if due else None

    # -- helpers

    def _shared_task(self, now: float) -> FrameTask | None:
        if not (self.viewers and self._is_ready):
            return None
        is_resting = self._animation is None and now - self._last_motion >= REST_DELAY_S - 1e-9
        if self._version != self._rendered_version:
            if now - self._last_start < FRAME_INTERVAL_S - 1e-9:
                return None
        elif not (is_resting and self._can_refine()):
            return None
        sharp = is_resting and self.resolution.has_measurements  # the first frame is coarse, so that it comes soon
        level = self.resolution.resting_level(self.size) if sharp else self.resolution.moving_level
        size = scale_size(self.size, level)
        return FrameTask(self.camera, size, self.output, sharp, now, self._version, self._seq, self._by)

    def _can_refine(self) -> bool:
        """Whether a finer frame is affordable. A slow scene sharpens in several frames, as the measurements allow."""
        if self._sharp_size is None:
            return True
        return scale_size(self.size, self.resolution.resting_level(self.size)) > self._sharp_size

    def _request_task(self, now: float) -> FrameTask | None:
        """The oldest request; None, with an error as reply, if it would delay all other viewers for too long."""
        viewer = next(iter(self._requests))
        request = self._requests.pop(viewer)
        camera, size = self._complete_camera(request), request.size or self.size
        seconds = self.resolution.estimate(size)
        if seconds > MAX_REQUEST_S:
            message = f"{size[0]}x{size[1]} pixels would block all viewers for about {seconds:.0f} s; request fewer"
            self._reply(viewer, CommandError(id=request.id, code="render_failed", message=message))
            return None
        output = request.output or self.output
        return FrameTask(camera, size, output, sharp=True, start_time=now, requester=viewer, id=request.id)

    def _advance(self, now: float) -> None:
        """Move the camera along its animation, and end the animation if it has arrived."""
        if self._animation is None:
            return
        animation, viewer, command_id = self._animation
        self._set_camera(animation.at(now), min(now, animation.end_time))
        if now >= animation.end_time:
            self._animation = None
            self._reply(viewer, CommandDone(id=command_id, command="fly_to"))

    def _end_animation(self) -> None:
        if self._animation is not None:
            _, viewer, command_id = self._animation
            self._animation = None
            self._reply_superseded(viewer, command_id, "a newer camera arrived before the end of this animation")

    def _set_camera(self, camera: Camera, now: float) -> None:
        if camera != self.camera:
            self.camera, self._last_motion = camera, max(now, self._last_motion)
            self._version += 1

    def _complete_camera(self, command: Move | FlyTo | RenderFrame) -> Camera:
        """The camera of a command; values that it leaves out are those of the current camera."""
        up, fov = command.up or self.camera.up, command.fov or self.camera.fov
        return Camera(position=command.position, look_at=command.look_at, up=up, fov=fov)

    def _greet(self, viewer: int) -> None:
        hello = Hello(
            viewer=viewer,
            method=self.method,
            box=None if self.box is None else (_vector(self.box[0]), _vector(self.box[1])),
            camera=self.camera,
            size=self.size,
            output=self.output,
        )
        self.replies.append((viewer, hello))

    def _reply_done(self, viewer: int, command: Move | SetOutput) -> None:
        if command.id is not None:
            self._reply(viewer, CommandDone(id=command.id, command=command.kind))

    def _reply_superseded(self, viewer: int, command_id: str | None, message: str) -> None:
        self._reply(viewer, CommandError(id=command_id, code="superseded", message=message))

    def _reply(self, viewer: int, reply: Reply) -> None:
        if viewer in self.viewers:
            self.replies.append((viewer, reply))


def _vector(values: Sequence[float]) -> tuple[float, float, float]:
    x, y, z = values
    return x, y, z
