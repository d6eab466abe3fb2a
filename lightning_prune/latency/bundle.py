"""A folder that is measured on another machine, without PyTorch and without this package."""

import json
from pathlib import Path
from typing import Any

from lightning_prune.files import write_bytes
from lightning_prune.files.read_json import read_json
from lightning_prune.files.write_json import write_json
from lightning_prune.graph.macs import MacModel
from lightning_prune.latency import timer
from lightning_prune.latency.job import LatencyJob
from lightning_prune.latency.table import LatencyTable, table_of

JOB, TIMES = "job.json", "times.json"
_README = """# Times of a network on this machine

    pip install numpy onnxruntime
    python measure.py --threads 1

writes times.json. Bring the folder back, and make the table of it:

    python -m lightning_prune latency CHECKPOINT --read FOLDER --output latency.json

With TensorRT the whole networks can be timed one by one (their times are not read by --read):

    trtexec --onnx=whole_0000.onnx --fp16
"""


def write_bundle(job: LatencyJob, folder: Path) -> None:
    """Write models, their meaning, and what measures them.

    Raises:
        ValueError: the folder holds something.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"--bundle {folder}: the folder is not empty; name a new one")
    folder.mkdir(parents=True, exist_ok=True)
    for name, models in (("kernel", job.kernels), ("whole", job.whole)):
        for number, model in enumerate(models):
            write_bytes(folder / f"{name}_{number:04d}.onnx", model)
    source = Path(timer.__file__).read_bytes()
    write_bytes(folder / "measure.py", source)
    write_bytes(folder / "README.md", _README.encode())
    write_json(folder / JOB, job.description())


def read_bundle(folder: Path, macs: MacModel) -> LatencyTable:
    """Return the table of a bundle that was measured.

    Raises:
        ValueError: it was not, it is no bundle, or one of another network.
    """
    job, times = _read(folder / JOB), _read(folder / TIMES)
    try:
        table = table_of(job, times, macs)
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{folder}: {JOB} and {TIMES} do not belong together ({error})") from error
    table.model(macs)  # of another network it is refused
    return table


def _read(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if content is None:
        advice = "run measure.py there first" if path.name == TIMES else "write one by --bundle"
        raise ValueError(f"{path}: there is no such file, or it is no JSON; {advice}")
    return content


def table_text(table: LatencyTable) -> str:
    """Return a table as the text of a JSON file."""
    return json.dumps(table.content()) + "\n"
