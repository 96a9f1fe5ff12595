"""Entry point of the command line.

It starts fast because each command imports its own dependencies. Results go to stdout, progress and messages to stderr.
Exit codes: 0 success; 1 error, with one sentence on stderr; 2 invalid arguments; 130 Ctrl-C.
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
    """Run a command line and return the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv
    args: Args | None = None
    try:
        args = parse(argv)
        command: Callable[[Args], int] = args.run_command
        return command(args)
    except (KeyboardInterrupt, Interrupted) as stop:
        number = stop.number if isinstance(stop, Interrupted) else signal.SIGINT
        complain(f"stopped. {describe_resume(args, argv)}", debug)
        return 128 + number
    except LumigraphError as error:
        return complain(str(error), debug)
    except BrokenPipeError:  # the reader of stdout has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        return complain(f"{error.strerror or error}{where}", debug)
    except MemoryError:
        return complain("out of memory; a larger --downscale needs less memory", debug)
    except Exception as error:
        return complain(f"internal error: {type(error).__name__}: {error}; --debug prints a traceback", debug)


def complain(sentence: str, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    plain = "".join(letter if letter.isprintable() else " " for letter in sentence)
    print(f"lumigraph: {' '.join(plain.split())}", file=sys.stderr)
    return 1


def describe_resume(args: Args | None, argv: Sequence[str]) -> str:
    """Describe how to resume after Ctrl-C."""
    command = getattr(args, "command", None)
    words = [word for word in argv if word != "--overwrite"]
    if command == "train" and "--resume" not in words:
        words.append("--resume")
    if command in ("train", "scan"):
        return f"Progress is saved; continue with: lumigraph {shlex.join(words)}"
    return "No partial output is left; the same command starts again"
