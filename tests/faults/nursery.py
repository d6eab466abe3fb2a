"""The process that starts trainings for the tests, as the harness sees it."""

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


class Child:
    """A training that can be killed."""

    def __init__(self, server: "subprocess.Popen[bytes]") -> None:
        self._server = server
        self._code: int | None = None
        self.number = self._read()

    def poll(self) -> int | None:
        if self._code is None and select.select([self._server.stdout], [], [], 0)[0]:
            self.wait()
        return self._code

    def wait(self) -> int:
        if self._code is None:
            self._code = self._read()
        return self._code

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.number, signal.SIGKILL)

    def _read(self) -> int:
        line = self._server.stdout.readline()
        assert line, f"the process that starts trainings ended with {self._server.wait()}"
        return int(line)


class Nursery:
    """Starts trainings, each in a fresh copy of one process that has imported everything."""

    def __init__(self) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
        self.server = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.child"], cwd=REPOSITORY, env=environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
        )  # fmt: skip

    def start(self, folder: Path, recipe: str, without: str = "") -> Child:
        self.server.stdin.write(json.dumps([str(folder), recipe, without]).encode() + b"\n")
        return Child(self.server)

    def close(self) -> None:
        self.server.stdin.close()
        self.server.stdout.close()
        self.server.kill()  # nothing is running any more, and its own end takes seconds
        self.server.wait()
