"""A forkserver: a process that has imported all that a worker needs, and forks one worker for each job.

An empty job then costs milliseconds instead of the half second of CPU time that the imports take. The `Forkserver` of
an executor starts and ends `python -m lumigraph.jobs.executors.forkserver MODULE:FUNCTION PIPE`.
The process has one thread, and imports neither torch nor a method, so that forking is safe.
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

FORK_TIMEOUT_S = 60.0  # covers the imports of a new forkserver


class ForkserverLostError(OSError):
    """The forkserver has exited, so the state of its workers is unknown."""


class Forkserver:
    """The executor's handle to the forkserver process. Workers inherit the file descriptors `inherited_fds`.

    All methods raise ForkserverLostError if the process has exited.
    """

    def __init__(self, program: str, inherited_fds: Sequence[int] = ()) -> None:
        self._exit_codes: list[tuple[int, int]] = []
        self._pipe, child_pipe = Pipe()
        with child_pipe:
            command = [sys.executable, "-m", __name__, program, str(child_pipe.fileno())]
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                pass_fds=(child_pipe.fileno(), *inherited_fds),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def fork(self, name: str, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> int:
        """Fork a worker in its own process group, with its output in `log`, and return its process id."""
        self._send(fork=name, arguments=list(arguments), environment=dict(environment), log=str(log))
        while True:
            reply = self._receive(FORK_TIMEOUT_S)
            if reply is None:
                raise ForkserverLostError(f"no worker could be started in {FORK_TIMEOUT_S:.0f} s")
            if "error" in reply:
                raise OSError(reply["error"])
            if "pid" in reply:
                return int(reply["pid"])

    def stop(self, pid: int) -> None:
        """Ask a worker to save and exit, if it still runs."""
        self._send(stop=pid)

    def kill(self, pid: int) -> None:
        """Kill a worker and all its children, if it still runs."""
        self._send(kill=pid)

    def poll(self) -> list[tuple[int, int]]:
        """(process id, exit code) of workers that have exited with all their children. Each is reported once."""
        while self._receive(0.0) is not None:
            pass
        exit_codes, self._exit_codes = self._exit_codes, []
        return exit_codes

    def close(self) -> None:
        """End the forkserver; its workers end with it."""
        self._pipe.close()
        self._process.kill()
        self._process.wait()

    def _send(self, **message: Any) -> None:
        try:
            self._pipe.send_bytes(json.dumps(message).encode())
        except OSError as error:
            raise ForkserverLostError(str(error)) from error

    def _receive(self, timeout_s: float) -> dict[str, Any] | None:
        try:
            message = json.loads(self._pipe.recv_bytes()) if self._pipe.poll(timeout_s) else None
        except (OSError, EOFError) as error:
            raise ForkserverLostError(str(error)) from error
        if message is not None and "ended" in message:
            self._exit_codes.append((message["ended"], message["code"]))
        return message


def serve_forks(pipe: Connection) -> list[str]:
    """Fork workers until the executor closes the pipe. Returns only in a forked worker: the worker's arguments."""
    children: set[int] = set()
    child_exit_fd = _open_child_exit_fd()
    gc.freeze()  # a collection in a child would touch, and so copy, the shared pages
    try:
        while True:
            ready = wait([pipe, child_exit_fd])
            if child_exit_fd in ready:
                os.read(child_exit_fd, 512)
            for pid in [pid for pid in children if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)]:
                _kill_group(pid)  # its children; until it is reaped, no other process can get its id
                children.remove(pid)
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                pipe.send_bytes(json.dumps({"ended": pid, "code": code}).encode())
            if pipe not in ready:
                continue
            message = json.loads(pipe.recv_bytes())
            if "fork" in message:
                try:
                    log_fd = os.open(message["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
                    pid = os.fork()
                except OSError as error:
                    pipe.send_bytes(json.dumps({"error": str(error)}).encode())
                    continue
                if pid == 0:
                    break
                os.close(log_fd)
                os.setpgid(pid, pid)
                children.add(pid)
                pipe.send_bytes(json.dumps({"pid": pid}).encode())
            elif message.get("kill") in children:
                _kill_group(message["kill"])
            elif message.get("stop") in children:
                os.kill(message["stop"], signal.SIGTERM)
    except (EOFError, OSError):  # the executor has gone, or an operation failed: the executor starts another forkserver
        for pid in children:
            _kill_group(pid)
        raise SystemExit(1) from None
    pipe.close()
    _set_up_worker(message, log_fd)
    return list(message["arguments"])


def _open_child_exit_fd() -> int:
    """A file descriptor that becomes readable when a child has exited."""
    read_fd, write_fd = os.pipe()
    os.set_blocking(write_fd, False)
    signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return read_fd


def _set_up_worker(message: dict[str, Any], log_fd: int) -> None:
    """Give the forked process its own group, log, signals, environment and name."""
    with contextlib.suppress(PermissionError):  # the forkserver has already set the group
        os.setpgid(0, 0)
    os.dup2(log_fd, 1)
    os.dup2(log_fd, 2)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.close(signal.set_wakeup_fd(-1))
    os.environ.update(message["environment"])
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(message["fork"])  # the name in `ps` and `top`


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # the group is empty; macOS says "not permitted"
        os.killpg(pid, signal.SIGKILL)


def main() -> int:
    run_worker: Callable[[], int] = pkgutil.resolve_name(sys.argv[1])
    sys.argv[1:] = serve_forks(Connection(int(sys.argv[2])))
    return run_worker()


if __name__ == "__main__":
    sys.exit(main())
