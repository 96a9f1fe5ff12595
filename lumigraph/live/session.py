"""The newest camera becomes the newest frame: what to render next, for whom, how sharp. No clock, no thread, no pixel.

Whoever owns a session tells it what happened (`joined`, `take`, `ready`, `finished`), and asks for `work`; `now` is in
seconds of any clock that does not go back. Answers to commands gather in `replies` until they are fetched.

There is one camera for all. While it moves pictures are coarse and quick; once it has rested for REST seconds comes one
that is sharp. Nothing is rendered where nothing changed, where nobody watches, or where nobody is ready for a frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from lumigraph.live.camera_animation import Flight
from lumigraph.live.resolution import Pace, scaled
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

REST = 0.15  # seconds without a new camera
FRAME = 1 / 30  # seconds between two frames for all, at least
LONGEST = 60.0  # seconds that one viewer's request may take: nobody sees anything new meanwhile
Size = tuple[int, int]


@dataclass(frozen=True)
class Work:
    """A picture to render: for all where `asker` is None, else the answer to a request of that viewer."""

    camera: Camera
    size: Size  # width, height
    output: Output
    sharp: bool
    begun: float
    change: int = 0  # the state of the session that it shows
    seq: int | None = None
    by: int | None = None
    asker: int | None = None
    id: str | None = None


@dataclass
class Session:
    """A camera that many look through."""

    camera: Camera
    size: Size = (640, 480)  # width, height of a frame at rest
    output: Output = "rgb"
    method: str = ""
    box: Sequence[Sequence[float]] | None = None
    pace: Pace = field(default_factory=Pace)
    watchers: set[int] = field(default_factory=set)
    replies: list[tuple[int, Reply]] = field(default_factory=list)  # (viewer, what to say)

    _change: int = 1  # rises with whatever makes the last frame out of date
    _shown: int = 0  # the change that the last frame shows
    _sharp: Size | None = None  # of the last frame, where it was one at rest
    _ready: bool = True
    _moved: float = -math.inf
    _begun: float = -math.inf  # when the last frame for all was begun
    _seq: int | None = None
    _by: int | None = None
    _flight: tuple[Flight, int, str | None] | None = None  # and who asked for it, with which id
    _asked: dict[int, RenderFrame] = field(default_factory=dict)
    _all_in_turn: bool = False  # the next picture is for all, where there is one to render

    # -- what happened

    def joined(self, viewer: int) -> None:
        self.watchers.add(viewer)
        self._greet(viewer)

    def left(self, viewer: int) -> None:
        self.watchers.discard(viewer)
        self._asked.pop(viewer, None)

    def ready(self) -> None:
        """Somebody can take another frame. At the start that is so."""
        self._ready = True

    def take(self, viewer: int, command: Move | FlyTo | RenderFrame | SetOutput, now: float) -> None:
        """A command of a viewer. The newest wins: what it makes pointless is answered with an error."""
        self._advance(now)
        if isinstance(command, RenderFrame):
            older = self._asked.pop(viewer, None)
            if older is not None:
                self._supersede(viewer, older.id, "another render_frame came before this one was begun")
            self._asked[viewer] = command
        elif isinstance(command, FlyTo):
            self._end_flight()
            flight = Flight(self.camera, self._completed(command), now, command.duration, command.easing)
            self._flight = (flight, viewer, command.id)
            self._seq, self._by = None, viewer
            self._advance(now)
        elif isinstance(command, Move):
            self._end_flight()
            self._look(self._completed(command), now)
            self._seq, self._by = command.seq, viewer
            self._done(viewer, command)
        else:
            size, output = command.size or self.size, command.output or self.output
            if (size, output) != (self.size, self.output):
                self.size, self.output = size, output
                self._change += 1
            self._done(viewer, command)

    def replaced(self, box: Sequence[Sequence[float]]) -> None:
        """The scene itself is another now, or there at last."""
        first, self.box = self.box is None, box
        if first:
            for viewer in self.watchers:
                self._greet(viewer)
        self._change += 1

    def finished(self, work: Work, seconds: float | None) -> None:
        """What `work` gave out is done, in so many seconds; None where it failed, which is not tried again until
        something changes."""
        if work.asker is None:
            self._shown = work.change
            self._sharp = work.size if work.sharp else None
        if seconds is not None:
            self.pace.took(work.size, self.size, seconds)
        elif work.asker is None:
            self._ready = True  # nobody got anything
            self._sharp = self.size
            if work.output == self.output != "rgb":  # the method may not know depth: colours it knows
                self.output = "rgb"
                self._change += 1

    # -- what to do

    def work(self, now: float) -> Work | None:
        """The picture to render now. Those for all and those for single askers take turns."""
        self._advance(now)
        for_all = self._for_all(now)
        while self._asked and not (for_all is not None and self._all_in_turn):
            for_one = self._for_one(now)
            if for_one is not None:
                self._all_in_turn = True
                return for_one
        if for_all is not None:
            self._all_in_turn, self._ready, self._begun = False, False, now
        return for_all

    def wake(self, now: float) -> float | None:
        """Seconds until there may be something to do although nothing happens; None: never."""
        due = []
        if self._asked:
            due.append(now)
        if self._flight is not None:
            due.append(self._flight[0].lands)
        if self.watchers and self._ready:
            if self._flight is not None or self._change != self._shown:
                due.append(self._begun + FRAME)
            elif self._coarser_than_possible():
                due.append(self._moved + REST)
        return max(0.0, min(due) - now) if due else None

    # -- how

    def _for_all(self, now: float) -> Work | None:
        if not (self.watchers and self._ready):
            return None
        resting = self._flight is None and now - self._moved >= REST - 1e-9
        if self._change != self._shown:
            if now - self._begun < FRAME - 1e-9:
                return None
        elif not (resting and self._coarser_than_possible()):
            return None
        sharp = resting and self.pace.known  # the very first picture comes soon, however slow the scene may be
        size = scaled(self.size, self.pace.resting(self.size) if sharp else self.pace.moving)
        return Work(self.camera, size, self.output, sharp, now, self._change, self._seq, self._by)

    def _coarser_than_possible(self) -> bool:
        """A slow scene becomes sharp in several pictures, each as fine as the ones before show to be affordable."""
        if self._sharp is None:
            return True
        return scaled(self.size, self.pace.resting(self.size)) > self._sharp

    def _for_one(self, now: float) -> Work | None:
        """The answer to the one who has waited longest; None where it would keep all others waiting for too long."""
        viewer = next(iter(self._asked))
        asked = self._asked.pop(viewer)
        camera, size, output = self._completed(asked), asked.size or self.size, asked.output or self.output
        seconds = self.pace.expected(size)
        if seconds > LONGEST:
            said = f"{size[0]}x{size[1]} pixels would take about {seconds:.0f} s of everybody; ask for fewer"
            self._say(viewer, CommandError(id=asked.id, code="render_failed", message=said))
            return None
        return Work(camera, size, output, sharp=True, begun=now, asker=viewer, id=asked.id)

    def _advance(self, now: float) -> None:
        """Where a flight has come to by now."""
        if self._flight is None:
            return
        flight, viewer, its_id = self._flight
        self._look(flight.at(now), min(now, flight.lands))
        if now >= flight.lands:
            self._flight = None
            self._say(viewer, CommandDone(id=its_id, command="fly_to"))

    def _end_flight(self) -> None:
        if self._flight is not None:
            _, viewer, its_id = self._flight
            self._flight = None
            self._supersede(viewer, its_id, "another camera came before this one arrived")

    def _look(self, camera: Camera, now: float) -> None:
        if camera != self.camera:
            self.camera, self._moved = camera, max(now, self._moved)
            self._change += 1

    def _completed(self, stand: Move | FlyTo | RenderFrame) -> Camera:
        """What a command does not say stays as it is."""
        up, fov = stand.up or self.camera.up, stand.fov or self.camera.fov
        return Camera(position=stand.position, look_at=stand.look_at, up=up, fov=fov)

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

    def _done(self, viewer: int, command: Move | SetOutput) -> None:
        if command.id is not None:
            self._say(viewer, CommandDone(id=command.id, command=command.kind))

    def _supersede(self, viewer: int, its_id: str | None, why: str) -> None:
        self._say(viewer, CommandError(id=its_id, code="superseded", message=why))

    def _say(self, viewer: int, reply: Reply) -> None:
        if viewer in self.watchers:
            self.replies.append((viewer, reply))


def _vector(values: Sequence[float]) -> tuple[float, float, float]:
    x, y, z = values
    return x, y, z
