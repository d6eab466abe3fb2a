"""Work that may crash, hang or eat the memory, done in a child process with limits."""

import faulthandler
import json
import os
import resource
import select
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch


def apart(
    do: Callable[[int], str], numbers: range, seconds: float = 20.0, megabytes: int = 1500
) -> Iterator[tuple[int, str]]:
    """Yield what ``do`` returns for each number: its text, or HANG, or CRASH and the signal.

    Args:
        do: Called in the child.
        numbers: What it is called with; after a crash or a hang another child continues behind it.
        seconds: For one call.
        megabytes: Of address space beyond what the process has.
    """
    numbers = range(numbers.start, numbers.stop)
    while numbers:
        reads, child = _start(do, numbers, megabytes)
        done = 0
        try:
            for done, text in enumerate(_lines(reads, seconds), 1):
                yield numbers[done - 1], text
        finally:
            os.close(reads)
            os.kill(child, signal.SIGKILL)  # it is a zombie where it has ended by itself
            status = os.waitpid(child, 0)[1]
        if done < len(numbers):
            kind = f"CRASH by signal {status & 127}"
            killed = status & 127 == signal.SIGKILL
            yield numbers[done], f"HANG of {seconds:g} s" if killed else kind
        numbers = numbers[done + 1 :]


def _start(do: Callable[[int], str], numbers: range, megabytes: int) -> tuple[int, int]:
    reads, writes = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads; the child starts none
        child = os.fork()
    if child:
        os.close(writes)
        return reads, child
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + megabytes * 2**20,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.disable()
    torch.set_num_threads(1)
    for number in numbers:
        try:
            text = do(number)
        except BaseException as error:
            text = f"{type(error).__name__}: {str(error)[:300]}"
        os.write(writes, json.dumps(text).encode() + b"\n")
    os._exit(0)


def _lines(reads: int, seconds: float) -> Iterator[Any]:
    """Yield lines until the pipe ends, or for so long none comes."""
    waiting = b""
    end = time.monotonic() + seconds
    while True:
        if b"\n" in waiting:
            line, _, waiting = waiting.partition(b"\n")
            yield json.loads(line)
            end = time.monotonic() + seconds
            continue
        if not select.select([reads], [], [], max(0.0, end - time.monotonic()))[0]:
            return
        more = os.read(reads, 1 << 16)
        if not more:
            return
        waiting += more
