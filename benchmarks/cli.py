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
    truth = (folder / "truth" / "transforms.json").read_text(encoding="utf-8")
    # The truth lies apart from the photos, but a capture speaks of files within it: here it moves to where they are.
    (folder / "transforms.json").write_text(truth.replace('"../images/', '"images/'), encoding="utf-8")
    return folder / "images", folder
