"""Preparation of photos for training: time and memory to decode, undistort and downscale large JPEGs.

python -m benchmarks.loading FOLDER     one measurement of the photos in FOLDER, as a line of JSON
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from lumigraph.captures.image_file import PhotoFiles, read_header
from lumigraph.captures.undistort import prepare
from lumigraph.scene.cameras import Cameras
from lumigraph.scene.capture import Capture
from lumigraph.studio.training import DEFAULT_LONGEST_SIDE_PX

CASES = ((150, (4000, 3000)), (400, (6000, 4000)))  # photos, (width, height)
DISTINCT_PHOTOS = 6  # of a case; the others are copies under other names
LOADING_JPEG_QUALITY = 92  # about 3 MB for 12 megapixels, like a phone's photos
GRAIN_STD = 4.0  # grey values
DISTORTION = (0.0578, -0.0805, -0.00098, 0.00016, 0.0, 0.0, 0.0, 0.0)  # of a phone

Row = dict[str, object]


def rows() -> Iterator[Row]:
    for count, size in CASES:
        with tempfile.TemporaryDirectory(prefix="lumigraph-bench-") as work:
            folder = Path(work, "photos")
            write_photos(folder, count, size)
            result = subprocess.run(
                [sys.executable, "-m", "benchmarks.loading", str(folder)], stdout=subprocess.PIPE, text=True, check=True
            )
            yield {"case": f"{count} photos of {size[0]}x{size[1]}", **json.loads(result.stdout)}


def write_photos(folder: Path, count: int, size: tuple[int, int]) -> None:
    """Write JPEGs of noise whose amplitude falls with its frequency, as in photos, plus sensor grain."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for i in range(count):
        path = folder / f"{i:04d}.jpg"
        if i < DISTINCT_PHOTOS:
            image = synthetic_photo(random, size)
            cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, LOADING_JPEG_QUALITY])
        else:
            shutil.copyfile(folder / f"{i % DISTINCT_PHOTOS:04d}.jpg", path)


def synthetic_photo(random: np.random.Generator, size: tuple[int, int]) -> NDArray[np.uint8]:
    """(height, width, 3): octaves of noise, each half as strong as the one at half its frequency."""
    width, height = size
    image = np.full((height, width, 3), 128, np.float32)
    for cell in (2**k for k in range(1, 10)):
        grid = random.normal(0, 0.18 * cell, (height // cell + 2, width // cell + 2, 3)).astype(np.float32)
        image += cv2.resize(grid, size, interpolation=cv2.INTER_CUBIC)
    image += random.normal(0, GRAIN_STD, (height, width, 1)).astype(np.float32)
    return image.clip(0, 255).astype(np.uint8)


def peak_mib() -> int:
    """Peak memory of this process. getrusage would include the memory of the parent at the fork."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) >> 10


def main(folder: Path) -> None:
    paths = sorted(folder.iterdir())
    width, height, _ = read_header(paths[0])
    n = len(paths)
    cameras = Cameras(
        torch.eye(3, 4).expand(n, 3, 4),
        torch.full((n, 2), 0.8 * width),
        torch.tensor([width / 2, height / 2]).expand(n, 2),
        torch.tensor([width, height]).expand(n, 2),
        "opencv",
        torch.tensor(DISTORTION).expand(n, 8),
    )
    names = tuple(path.name for path in paths)
    capture = Capture(cameras, PhotoFiles(paths, alpha=False), names, torch.zeros(n, dtype=torch.bool))
    idle = peak_mib()
    with tempfile.TemporaryDirectory(dir=folder.parent) as cache:
        seconds, cpu_seconds = [], []
        for _ in range(2):  # the second time all photos are cached
            start_time, cpu_start = time.perf_counter(), time.process_time()
            for _event in prepare(capture, Path(cache), max(width, height) / DEFAULT_LONGEST_SIDE_PX):
                pass
            seconds.append(time.perf_counter() - start_time)
            cpu_seconds.append(time.process_time() - cpu_start)
    row = {
        "megabytes": round(sum(path.stat().st_size for path in paths) / n / 1e6, 1),
        "seconds": round(seconds[0], 2),
        "cpu_seconds": round(cpu_seconds[0], 2),
        "cached_seconds": round(seconds[1], 3),
        "peak_mib": peak_mib(),
        "idle_mib": idle,
    }
    print(json.dumps(row))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
