"""Dense, pruned, INT8 and both, in ONNX Runtime and OpenVINO: milliseconds beside mAP.

From two checkpoints of a detector, dense and pruned, and a labelled set of images it writes both
bundles (32 and 8 bits for each runtime, judged on the validation images) and times all files in
turn on one thread. Ratios are to the dense network in 32 bits in ONNX Runtime, of the 20th
percentile of processor time, which other processes disturb least. Bundles that are there are used
again.

    python benchmarks/deploy.py --dense dense.ckpt --pruned pruned.ckpt --data data.yaml
"""

import argparse
import json
from pathlib import Path
from typing import Any

from lightning_prune.cli import export
from lightning_prune.cli.benchmark_parser import benchmark_parser
from lightning_prune.cli.benchmark_run import BenchmarkRun
from lightning_prune.export.bundle.read_bundle import is_bundle

FORMATS = "onnx,onnx-int8,openvino,openvino-int8"


def bundle(checkpoint: Path, data: Path, folder: Path, limit: int, formats: str) -> Path:
    """Write the bundle of a checkpoint, whatever its files lose: the table says it."""
    if not is_bundle(folder):
        export.main(
            [
                str(checkpoint), "--format", formats, "--data", str(data), "--output", str(folder),
                "--limit", str(limit), "--accept-loss", "1",
            ]
        )  # fmt: skip
    return folder


def processor() -> dict[str, Any]:
    """Return the processor's name, and which of the instructions that matter it has."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    found = {key.strip(): value.strip() for key, value in facts.items()}
    flags = found.get("flags", "").split()
    wanted = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8")
    return {"name": found.get("model name"), "has": [flag for flag in wanted if flag in flags]}


def main() -> None:
    """Run, print and write the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--dense", type=Path, required=True)
    add("--pruned", type=Path, required=True)
    add("--data", type=Path, required=True, help="data.yaml")
    add("--work", type=Path, default=Path("/tmp/deploy"), help="folder of the bundles")
    add("--formats", default=FORMATS)
    add("--batches", default="1")
    add("--rounds", type=int, default=60)
    add("--limit", type=int, default=128, help="images to calibrate on")
    add("--output", type=Path, default=Path("benchmarks/results/deploy.json"))
    args = parser.parse_args()
    folders = [
        bundle(path, args.data, args.work / name, args.limit, args.formats)
        for name, path in (("dense", args.dense), ("pruned", args.pruned))
    ]
    run = BenchmarkRun(
        benchmark_parser().parse_args(
            [
                str(folders[1]), "--dense", str(folders[0]), "--batch", args.batches,
                "--rounds", str(args.rounds),
            ]
        )
    )  # fmt: skip
    run.go()
    content = run.content() | {"cpu": processor()}
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(content, indent=1) + "\n")
    print(f"written to {args.output}")


if __name__ == "__main__":
    main()
