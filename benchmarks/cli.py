"""Run the command line in a separate process and time it from outside."""

import subprocess
import sys
import time
from pathlib import Path


def lumigraph(*arguments: str | Path) -> tuple[str, float]:
    """Run `lumigraph ARGUMENTS`: its stdout and wall seconds. Raises CalledProcessError; messages go to stderr."""
    start = time.perf_counter()
    process = subprocess.run(
        [sys.executable, "-m", "lumigraph.cli", *map(str, arguments)], stdout=subprocess.PIPE, text=True, check=True
    )
    return process.stdout, time.perf_counter() - start


def sample(folder: Path) -> tuple[Path, Path]:
    """Render the sample into `folder`: the folder of its photos alone, and the capture with true cameras."""
    lumigraph("sample", folder, "--quiet")
    return folder / "images", folder
