"""The arguments of `python -m lightning_prune benchmark`; apart, so that --help is quick."""

import argparse
from pathlib import Path

RUNTIMES = ("pytorch", "compiled", "onnx", "openvino")


def benchmark_parser() -> argparse.ArgumentParser:
    """Return the parser of `python -m lightning_prune benchmark`."""
    parser = argparse.ArgumentParser(
        prog="python -m lightning_prune benchmark",
        description="Time networks in the runtimes that are installed, all in turn: checkpoints "
        "in PyTorch, ONNX Runtime and OpenVINO, every file of a bundle in its own. Processor time "
        "is of all threads together; other processes disturb its 20th percentile least, and "
        "ratios are of that.",
    )
    add = parser.add_argument
    add(
        "models", type=Path, nargs="+", metavar="MODEL",
        help="checkpoints, folders of runs, bundles of `export`, .onnx and .xml files",
    )  # fmt: skip
    add(
        "--dense", type=Path, metavar="MODEL",
        help="the dense network, such as a checkpoint: ratios are to it, in ONNX Runtime where "
        "that is installed; default: ratios are to the first row",
    )  # fmt: skip
    add("--batch", default="1,8", help="images at once, or several numbers; default: 1,8")
    add("--threads", type=int, default=1, help="of every runtime; default: 1")
    add("--rounds", type=int, default=30, help="counted passes of each; default: 30")
    add(
        "--runtimes", default="pytorch,onnx,openvino", metavar="RUNTIMES",
        help=f"what checkpoints run in, some of {','.join(RUNTIMES)}; default: "
        "pytorch,onnx,openvino; compiled is torch.compile, which needs a C++ compiler and a minute",
    )  # fmt: skip
    add(
        "--image-size", type=int, metavar="PIXELS",
        help="side of the images; default: what the first model was trained on",
    )  # fmt: skip
    add("--json", type=Path, metavar="FILE", help="write the table, with all figures, as JSON")
    add(
        "--class", dest="module_class", metavar="PACKAGE.MODULE.CLASS",
        help="the LightningModule; default: that of the run's config.yaml, else DetectionModule",
    )  # fmt: skip
    add(
        "--input-shape", type=int, nargs="+", metavar="SIZE",
        help="shape of one sample; default: the module's example_input_array",
    )  # fmt: skip
    return parser
