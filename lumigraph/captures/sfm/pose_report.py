"""How well the cameras of photos were found, and the gates: what to doubt and what to refuse.

The gates are the judgement over a reconstruction. A wrong one may register every photo with a small reprojection error:
what gives it away is that its poses disagree with the matches of the photo pairs that they were made from.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class PoseReport:
    """How well the cameras of the photos were found. Pixels are those of the photos reduced to `max_image_size`."""

    photos: int
    registered: int
    not_registered: list[str]
    models: int  # separate reconstructions that the photos fell into; the largest is kept
    points: int
    reprojection_px: float  # mean
    observations_per_view: float  # mean number of 3D points that a photo sees
    track_length: float  # mean number of photos that see a 3D point
    matches_consistent: float  # share of verified matches within 4 px of their epipolar lines
    pairs_consistent: float  # share of pairs, of 100 matches or more, of which 80 % are so
    focal_px: list[float]  # of each camera, at the photos' own size
    principal_point_refined: bool
    max_image_size: int
    attempts: int = 1
    seconds: dict[str, float] = field(default_factory=dict)  # wall time of each stage
    cpu_seconds: float = 0.0  # user and system, all threads
    warnings: list[str] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Registered photos over all photos."""
        return self.registered / self.photos if self.photos else 0.0


@dataclass(frozen=True)
class Gate:
    """A figure of the report, below (or above) which a reconstruction is suspect (`warn`) or refused (`stop`)."""

    figure: str
    warn: float
    stop: float | None
    says: str
    above: bool = False

    def fails(self, report: PoseReport, limit: float | None) -> bool:
        value = float(getattr(report, self.figure))
        return limit is not None and (value > limit if self.above else value < limit)

    def sentence(self, report: PoseReport) -> str:
        return self.says.format(report, percent=100 * float(getattr(report, self.figure)))


# docs/decisions/0012 has the figures of the captures that these come from.
GATES = (
    Gate("share", 0.90, 0.60, "only {0.registered} of {0.photos} photos could be joined"),
    Gate("observations_per_view", 80, 50, "a photo sees only {0.observations_per_view:.0f} of the points on average"),
    Gate("track_length", 2.6, 2.01, "a point is seen in only {0.track_length:.1f} photos on average"),
    Gate("matches_consistent", 0.90, 0.85, "only {percent:.0f} % of the matches agree with the cameras found"),
    Gate("pairs_consistent", 0.80, 0.75, "only {percent:.0f} % of the photo pairs agree with the cameras found"),
    Gate("reprojection_px", 1.5, None, "points miss their pixels by {0.reprojection_px:.1f} px on average", above=True),
)


def stops(report: PoseReport) -> list[str]:
    """Why a reconstruction must not be used, as clauses; empty for a usable one."""
    return [gate.sentence(report) for gate in GATES if gate.fails(report, gate.stop)]


def doubts(report: PoseReport) -> list[str]:
    """What is suspect about it, as clauses; `stops` included."""
    return [gate.sentence(report) for gate in GATES if gate.fails(report, gate.warn)]
