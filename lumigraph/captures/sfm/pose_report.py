"""Quality metrics of estimated poses, and the gates that warn about or reject a model.

A wrong reconstruction may register every image with a small reprojection error. It is revealed by its
poses, which contradict the matches of the image pairs that it was built from.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class PoseReport:
    """Quality of the estimated poses. Pixels are those of the photos downscaled to `max_image_size`."""

    photos: int
    registered: int
    not_registered: list[str]
    models: int  # number of separate reconstructions; the largest is used
    points: int
    reprojection_px: float  # mean
    observations_per_view: float  # mean number of 3D points per image
    track_length: float  # mean number of images per 3D point
    matches_consistent: float  # share of verified matches within 4 px of their epipolar lines
    pairs_consistent: float  # share of pairs of at least 100 matches in which 80 % of the matches are consistent
    focal_px: list[float]  # of each camera, in pixels of the original photos
    principal_point_refined: bool
    max_image_size: int
    attempts: int = 1
    seconds: dict[str, float] = field(default_factory=dict)  # wall time of each stage
    cpu_seconds: float = 0.0  # user and system, all threads
    warnings: list[str] = field(default_factory=list)

    @property
    def registered_share(self) -> float:
        """Registered images over all images."""
        return self.registered / self.photos if self.photos else 0.0


@dataclass(frozen=True)
class Gate:
    """Limits of a metric: a model is suspect beyond `warn`, rejected beyond `stop`. `above`: limits are maxima."""

    metric: str
    warn: float
    stop: float | None
    template: str
    above: bool = False

    def is_violated(self, report: PoseReport, limit: float | None) -> bool:
        value = float(getattr(report, self.metric))
        return limit is not None and (value > limit if self.above else value < limit)

    def message(self, report: PoseReport) -> str:
        return self.template.format(report, percent=100 * float(getattr(report, self.metric)))


# docs/decisions/0012 has the values of the captures behind these limits.
GATES = (
    Gate("registered_share", 0.90, 0.60, "only {0.registered} of {0.photos} photos could be registered"),
    Gate("observations_per_view", 80, 50, "a photo sees only {0.observations_per_view:.0f} of the points on average"),
    Gate("track_length", 2.6, 2.01, "a point is seen in only {0.track_length:.1f} photos on average"),
    Gate("matches_consistent", 0.90, 0.85, "only {percent:.0f} % of the matches agree with the estimated cameras"),
    Gate("pairs_consistent", 0.80, 0.75, "only {percent:.0f} % of the photo pairs agree with the estimated cameras"),
    Gate("reprojection_px", 1.5, None, "the mean reprojection error is {0.reprojection_px:.1f} px", above=True),
)


def find_failures(report: PoseReport) -> list[str]:
    """Return the reasons to reject the model, as clauses; empty for a usable model."""
    return [gate.message(report) for gate in GATES if gate.is_violated(report, gate.stop)]


def find_warnings(report: PoseReport) -> list[str]:
    """Return the reasons to doubt the model, as clauses, including those of `find_failures`."""
    return [gate.message(report) for gate in GATES if gate.is_violated(report, gate.warn)]
