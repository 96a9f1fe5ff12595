"""A process that has imported all that a worker needs, and forks one for each job: a job that does nothing then costs
milliseconds and not the half second of processor time that importing takes. `python -m
lumigraph.jobs.executors.forkserver MODULE:FUNCTION PIPE` is started and ended by the `Forkserver` of an executor.

It has one thread, and imports neither torch nor a method: what is forked has nothing that a fork could break.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import pkgutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any

PATIENCE = 60.0  # seconds in which it has imported everything and forked


class ForkserverLostError(OSError):
    """The nursery is gone, and with it the knowledge of what became of its workers."""


class Forkserver:
    """The executor's handle to the forkserver. Workers inherit the file descriptors `keep`."""

    def __init__(self, program: str, keep: Sequence[int] = ()) -> None:
        self._ended: list[tuple[int, int]] = []
        self._pipe, theirs = Pipe()
        with theirs:
            command = [sys.executable, "-m", __name__, program, str(theirs.fileno())]
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, pass_fds=(theirs.fileno(), *keep), start_new_session=True
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def fork(self, name: str, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> int:
        """A worker in a session and group of its own, which says what it says into `log`. Returns its number."""
        self._tell(fork=name, arguments=list(arguments), environment=dict(environment), log=str(log))
        while True:
            said = self._hear(PATIENCE)
            if said is None:
                raise ForkserverLostError(f"no worker could be started in {PATIENCE:.0f} s")
            if "error" in said:
                raise OSError(said["error"])
            if "pid" in said:
                return int(said["pid"])

    def stop(self, pid: int) -> None:
        """Asks a worker to save and go, if it is still there."""
        self._tell(stop=pid)

    def kill(self, pid: int) -> None:
        """Ends a worker and all that it started, if it is still there."""
        self._tell(kill=pid)

    def ended(self) -> list[tuple[int, int]]:
        """(number, exit code) of workers that are gone with all they started. Each is named once."""
        while self._hear(0.0) is not None:
            pass
        gone, self._ended = self._ended, []
        return gone

    def close(self) -> None:
        """It ends, and so do its workers."""
        self._pipe.close()
        self._process.kill()
        self._process.wait()

    def _tell(self, **said: Any) -> None:
        try:
            self._pipe.send_bytes(json.dumps(said).encode())
        except OSError as error:
            raise ForkserverLostError(str(error)) from error

    def _hear(self, patience: float) -> dict[str, Any] | None:
        try:
            said = json.loads(self._pipe.recv_bytes()) if self._pipe.poll(patience) else None
        except (OSError, EOFError) as error:
            raise ForkserverLostError(str(error)) from error
        if said is not None and "ended" in said:
            self._ended.append((said["ended"], said["code"]))
        return said


def nurse(pipe: Connection) -> list[str]:
    """Forks until the executor is gone. Returns in each forked process alone: the arguments of its worker."""
    children: set[int] = set()
    bell = _bell()
    gc.freeze()  # so that collecting in a child does not touch, and so copy, what it shares
    try:
        while True:
            ready = wait([pipe, bell])
            if bell in ready:
                os.read(bell, 512)
            for pid in [pid for pid in children if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)]:
                _kill_group(pid)  # what it left behind; while it is not reaped, its number is nobody else's
                children.remove(pid)
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                pipe.send_bytes(json.dumps({"ended": pid, "code": code}).encode())
            if pipe not in ready:
                continue
            asked = json.loads(pipe.recv_bytes())
            if "fork" in asked:
                try:
                    log = os.open(asked["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
                    pid = os.fork()
                except OSError as error:
                    pipe.send_bytes(json.dumps({"error": str(error)}).encode())
                    continue
                if pid == 0:
                    break
                os.close(log)
                os.setpgid(pid, pid)
                children.add(pid)
                pipe.send_bytes(json.dumps({"pid": pid}).encode())
            elif asked.get("kill") in children:
                _kill_group(asked["kill"])
            elif asked.get("stop") in children:
                os.kill(asked["stop"], signal.SIGTERM)
    except (EOFError, OSError):  # nobody is left to nurse for, or it cannot be done: the executor starts another
        for pid in children:
            _kill_group(pid)
        raise SystemExit(1) from None
    pipe.close()
    _become(asked, log)
    return list(asked["arguments"])


def _bell() -> int:
    """A file that can be read when a child has ended."""
    bell, rope = os.pipe()
    os.set_blocking(rope, False)
    signal.set_wakeup_fd(rope, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return bell


def _become(asked: dict[str, Any], log: int) -> None:
    """A process of its own: group, log, signals, environment, name."""
    with contextlib.suppress(PermissionError):  # the nursery was first
        os.setpgid(0, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.close(signal.set_wakeup_fd(-1))
    os.environ.update(asked["environment"])
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(asked["fork"])  # what `ps` and `top` show


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody is left; macOS calls that not permitted
        os.killpg(pid, signal.SIGKILL)


def main() -> int:
    work: Callable[[], int] = pkgutil.resolve_name(sys.argv[1])
    sys.argv[1:] = nurse(Connection(int(sys.argv[2])))
    return work()


if __name__ == "__main__":
    sys.exit(main())
