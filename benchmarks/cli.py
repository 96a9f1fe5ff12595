"""The command line as a stranger would run it: in a process of its own, timed from outside."""

import subprocess
import sys
import time
from pathlib import Path


def lumigraph(*arguments: str | Path) -> tuple[str, float]:
    """Run `lumigraph ARGUMENTS` -> its stdout, wall seconds. Raises CalledProcessError; its complaints go to stderr."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "lumigraph.cli", *map(str, arguments)], stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout, time.perf_counter() - started


def sample(folder: Path) -> tuple[Path, Path]:
    """Render the sample into `folder` -> its photos alone, and a capture of them with their true cameras."""
    lumigraph("sample", folder, "--quiet")
    return folder / "images", folder
