"""Times the ONNX models of a folder with ONNX Runtime; needs numpy and onnxruntime, no torch.

    python measure.py [--threads 1] [--rounds 30]

Copied into folders that `python -m lightning_prune latency --bundle FOLDER` writes, this file
measures on the machine that a network is for, and writes times.json beside itself.
"""

import argparse
import json
import os
import platform
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

_NODE = re.compile(r"unit_o(\d+)_")
_LOW = 20  # percentile: what disturbs a run makes it longer
_WARM = 3


def kernel_times(model: bytes, threads: int, rounds: int) -> dict[int, float]:
    """Return the milliseconds of the kernel of each output width, by ONNX Runtime's own clock.

    Args:
        model: With nodes named ``unit_oW_`` for output widths W.
        threads: Threads of the runtime.
        rounds: Runs that count.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = _options(threads)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session, feed = _session(model, options)
        for _ in range(_WARM + rounds):
            session.run(None, feed)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    found: dict[int, list[float]] = {}
    for event in events:
        node = _NODE.match(event.get("name", ""))
        if event.get("cat") == "Node" and node and event["name"].endswith("_kernel_time"):
            found.setdefault(int(node[1]), []).append(event["dur"] / 1000)
    return {width: float(np.percentile(took[_WARM:], _LOW)) for width, took in found.items()}


def whole_times(models: Sequence[bytes], threads: int, rounds: int) -> list[float]:
    """Return the milliseconds of whole networks, which take turns.

    Of one thread processor time is taken, which other programs disturb less.
    """
    clock = time.process_time if threads == 1 else time.perf_counter
    opened = [_session(model, _options(threads)) for model in models]
    times: list[list[float]] = [[] for _ in models]
    for number in range(_WARM + rounds):
        for own, (session, feed) in zip(times, opened, strict=True):
            start = clock()
            session.run(None, feed)
            if number >= _WARM:
                own.append(1000 * (clock() - start))
    return [float(np.percentile(own, _LOW)) for own in times]


def measure(
    kernels: Sequence[bytes],
    whole: Sequence[bytes],
    threads: int = 1,
    rounds: int = 30,
    progress: Callable[[Sequence[Any]], Iterable[Any]] = iter,
) -> dict[str, Any]:
    """Return what kernels and whole networks take, and on what, as plain data.

    Args:
        kernels: Models of kernels.
        whole: Models of whole networks.
        threads: Threads of the runtime.
        rounds: Runs of each that count.
        progress: Shows how far it has come.
    """
    import onnxruntime

    own = [kernel_times(model, threads, rounds) for model in progress(kernels)]
    return {
        "runtime": f"onnxruntime {onnxruntime.__version__}",
        "threads": threads,
        "machine": machine(),
        "kernels": [{str(width): took for width, took in one.items()} for one in own],
        "whole": whole_times(whole, threads, max(rounds, 30)),
    }


def machine() -> str:
    """Return the name of this machine's processor, as far as the system says it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    named = re.search(r"^model name\s*:\s*(.+)$", text, re.M)
    flags = re.search(r"^flags\s*:\s*(.+)$", text, re.M)
    wanted = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8")
    have = [flag for flag in wanted if flags and flag in flags[1].split()]
    name = named[1] if named else platform.processor() or platform.machine()
    return " ".join([name, *have])


def _options(threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    return options


def _session(model: bytes, options: Any) -> tuple[Any, dict[str, Any]]:
    import onnxruntime

    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    feed = {
        given.name: random.random([s if isinstance(s, int) else 1 for s in given.shape]).astype(
            {"tensor(float)": np.float32, "tensor(int64)": np.int64}.get(given.type, np.float32)
        )
        for given in session.get_inputs()
    }
    return session, feed


def main() -> None:
    """Measure what lies beside this file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    folder = Path(__file__).resolve().parent
    kernels, whole = sorted(folder.glob("kernel_*.onnx")), sorted(folder.glob("whole_*.onnx"))
    if not kernels or not whole:
        raise SystemExit(f"{folder}: no kernel_*.onnx and whole_*.onnx beside this file")

    def counted(models: Sequence[Any]) -> Iterable[Any]:
        for number, model in enumerate(models, 1):
            print(f"\r{number} of {len(models)} files", end="", flush=True)
            yield model
        print()

    models, networks = ([file.read_bytes() for file in files] for files in (kernels, whole))
    found = measure(models, networks, arguments.threads, arguments.rounds, counted)
    part = folder / "times.json.part"
    part.write_text(json.dumps(found, indent=1), encoding="utf-8")
    os.replace(part, folder / "times.json")
    print(f"written to {folder / 'times.json'}")


if __name__ == "__main__":
    main()
