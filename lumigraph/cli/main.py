"""The command line: photos or a video in, a 3D scene out.

This door opens at once: what computes is imported by the command that needs it. Results go to stdout, everything said
on the way to stderr. The exit code is 0; or, with one sentence on stderr, 1; 2 where the command makes no sense; 130
after Ctrl-C.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Sequence

from lumigraph.cli.arguments import Args, parse
from lumigraph.cli.commands import Interrupted
from lumigraph.scene.errors import LumigraphError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line and returns the exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in given
    args: Args | None = None
    try:
        args = parse(given)
        command: Callable[[Args], int] = args.run_command
        return command(args)
    except (KeyboardInterrupt, Interrupted) as stop:
        number = stop.number if isinstance(stop, Interrupted) else signal.SIGINT
        complain(f"stopped. {how_to_go_on(args, given)}", debug)
        return 128 + number
    except LumigraphError as error:
        return complain(str(error), debug)
    except BrokenPipeError:  # whoever read our results has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        return complain(f"{error.strerror or error}{where}", debug)
    except MemoryError:
        return complain("out of memory; a larger --downscale needs less", debug)
    except Exception as error:
        return complain(f"a fault in lumigraph itself: {type(error).__name__}: {error}; --debug shows where", debug)


def complain(sentence: str, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    plain = "".join(letter if letter.isprintable() else " " for letter in sentence)
    print(f"lumigraph: {' '.join(plain.split())}", file=sys.stderr)
    return 1


def how_to_go_on(args: Args | None, given: Sequence[str]) -> str:
    """The way back in after Ctrl-C."""
    command = getattr(args, "command", None)
    words = [word for word in given if word != "--overwrite"]
    if command == "train" and "--resume" not in words:
        words.append("--resume")
    if command in ("train", "scan"):
        return f"What was learned is kept; go on with: lumigraph {shlex.join(words)}"
    return "Nothing half-written is left; the same command starts again"
