from __future__ import annotations

from pathlib import Path

from tests.jobs.soak import Soak


def test_soak_loses_nothing(tmp_path: Path) -> None:
    report = Soak(tmp_path, seed=7).run(seconds=600, kills=16)
    assert report.faults == []
    assert report.workers >= 5
    assert report.servers >= 1
    print(report)
