"""What `make demo` does: a server, its studio in a browser, and a scan that can be watched there.

    python examples/demo.py [PHOTOS] [--seconds 60]

Photos become the project of a server of its own (demo/studio), and what comes of them lies in demo/run at the end. At a
terminal the server stays until Ctrl-C, so that the scene can be walked through; elsewhere it ends with the scan.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import subprocess
import sys
import webbrowser
from pathlib import Path

UP = re.compile(r"Lumigraph is up: (\S+)")
LUMIGRAPH = [sys.executable, "-m", "lumigraph"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="folder or zip of photos, or a video")
    parser.add_argument("--seconds", type=float, default=60, help="of training (default: 60)")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="(default: demo)")
    asked = parser.parse_args()
    asked.out.mkdir(exist_ok=True)
    watched = sys.stdout.isatty()
    server = subprocess.Popen(
        [*LUMIGRAPH, "up", "--port", "0", "--data", str(asked.out / "studio"), "--quiet"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        found = UP.match(server.stdout.readline())
        if found is None:
            return server.wait() or 1
        print(f"\n  Watch the scene appear: {found[1]}\n", flush=True)
        if watched:
            with contextlib.suppress(webbrowser.Error):
                webbrowser.open(found[1])
        scan = [*LUMIGRAPH, "scan", str(asked.photos), "-o", str(asked.out / "run"), "--seconds", str(asked.seconds)]
        done = subprocess.run([*scan, "--remote", found[1]]).returncode
        if done == 0 and watched:
            print(f"\n  Walk through it: {found[1]}    (Ctrl-C ends the server; `lumigraph up` starts another)\n")
            server.wait()
        return done
    except KeyboardInterrupt:
        return 0
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    sys.exit(main())
