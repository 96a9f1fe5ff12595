"""Workers as processes of this machine, a group each: they end with the server, and whatever they started ends with
them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lumigraph.jobs.executor import Ended
from lumigraph.jobs.folder import DataFolder
from lumigraph.jobs.store import Claim

PARENT = "LUMIGRAPH_PARENT"  # number of the pipe that closes when the server ends
LIGHT = 1  # small jobs that may run beside one that takes all cores


class LocalExecutor:
    def __init__(self, folder: DataFolder, database_url: str, command: Sequence[str] = ()) -> None:
        self.cores = os.cpu_count() or 1
        self._gpus = [path.name.removeprefix("nvidia") for path in sorted(Path("/dev").glob("nvidia[0-9]*"))]
        self._folder, self._url = folder, database_url
        self._command = list(command) or [sys.executable, "-m", "lumigraph.worker"]
        self._children: dict[str, tuple[subprocess.Popen[bytes], Claim, list[str]]] = {}
        self._gone: dict[str, Ended] = {}
        self._pipe, self._kept_open = os.pipe()  # nobody writes: its end is the end of this process

    def free(self) -> tuple[int, int]:
        taken = sum(claim.cpus for _, claim, _ in self._children.values())
        gpus = sum(len(gpus) for _, _, gpus in self._children.values())
        return self.cores + LIGHT - taken, len(self._gpus) - gpus

    def start(self, claim: Claim) -> str:
        busy = {gpu for _, _, gpus in self._children.values() for gpu in gpus}
        gpus = [gpu for gpu in self._gpus if gpu not in busy][: claim.gpus]
        log = self._folder.job(claim.job)
        log.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, PARENT: str(self._pipe), "LUMIGRAPH_DATABASE": self._url}
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        with (log / "log.txt").open("ab") as output:
            child = subprocess.Popen(
                [*self._command, str(self._folder.path), claim.job, str(claim.attempt)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(self._pipe,),
                start_new_session=True,
            )
        self._children[claim.job] = (child, claim, gpus)
        return f"local:{child.pid}"

    def ended(self) -> list[Ended]:
        for job_id, (child, claim, _) in list(self._children.items()):
            if os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                continue
            _kill_group(child.pid)  # what it left behind; while it is not reaped, its number is nobody else's
            self._gone[job_id] = Ended(claim, child.wait())
            del self._children[job_id]
        return list(self._gone.values())

    def forget(self, claim: Claim) -> None:
        self._gone.pop(claim.job, None)

    def stop(self, job_id: str) -> None:
        if job_id in self._children:
            self._children[job_id][0].terminate()

    def kill(self, job_id: str) -> None:
        if job_id in self._children:
            _kill_group(self._children[job_id][0].pid)

    def at_work(self) -> list[Claim]:
        return [claim for _, claim, _ in self._children.values()]

    def close(self) -> None:
        os.close(self._kept_open)
        os.close(self._pipe)


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody is left; macOS calls that not permitted
        os.killpg(pid, signal.SIGKILL)
