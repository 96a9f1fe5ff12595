"""Run `make demo`: start a server, open its studio in a browser, and scan photos there.

    python examples/demo.py [PHOTOS] [--seconds 60]

The photos become a project of a new server (demo/studio), and the results are copied to demo/run. At a terminal the
server runs until Ctrl-C, so that you can walk through the scene; elsewhere it ends with the scan.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import subprocess
import sys
import webbrowser
from pathlib import Path

UP_MESSAGE = re.compile(r"Lumigraph is up: (\S+)")
LUMIGRAPH = [sys.executable, "-m", "lumigraph"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="folder or zip of photos, or a video")
    parser.add_argument("--seconds", type=float, default=60, help="training time in seconds (default: 60)")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="output folder (default: demo)")
    args = parser.parse_args()
    args.out.mkdir(exist_ok=True)
    is_interactive = sys.stdout.isatty()
    server = subprocess.Popen(
        [*LUMIGRAPH, "up", "--port", "0", "--data", str(args.out / "studio"), "--quiet"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        match = UP_MESSAGE.match(server.stdout.readline())
        if match is None:
            return server.wait() or 1
        print(f"\n  Watch the scene appear: {match[1]}\n", flush=True)
        if is_interactive:
            with contextlib.suppress(webbrowser.Error):
                webbrowser.open(match[1])
        scan = [*LUMIGRAPH, "scan", str(args.photos), "-o", str(args.out / "run"), "--seconds", str(args.seconds)]
        exit_code = subprocess.run([*scan, "--remote", match[1]]).returncode
        if exit_code == 0 and is_interactive:
            print(f"\n  Walk through it: {match[1]}    (Ctrl-C ends the server; `lumigraph up` starts another)\n")
            server.wait()
        return exit_code
    except KeyboardInterrupt:
        return 0
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    sys.exit(main())
