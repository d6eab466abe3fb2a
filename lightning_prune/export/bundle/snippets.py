"""How each file of a bundle is run without this package."""

from collections.abc import Mapping
from typing import Any


def snippet(entry: Mapping[str, Any], content: Mapping[str, Any]) -> list[str]:
    """Return the lines of a program that runs a file.

    Args:
        entry: The file in ``bundle.json``.
        content: All of ``bundle.json``.
    """
    name = entry["file"]
    if entry["format"] == "safetensors":
        return [
            "from safetensors.numpy import load_file  # or safetensors.torch",
            f'weights = load_file("{name}")  # name -> array, in the widths that are left',
            "print(sum(array.size for array in weights.values()))",
        ]
    lines = [*_imports(content, entry), *_inputs(content)]
    feed = ", ".join(f'"{one}": {_variable(place)}' for place, one in enumerate(content["inputs"]))
    if entry["format"].startswith("openvino"):
        lines += [
            f'model = openvino.Core().compile_model("{name}", "CPU")',
            f"found = list(model({{{feed}}}).values())",
        ]
    else:
        lines += [
            f'session = onnxruntime.InferenceSession("{name}")',
            f"found = session.run(None, {{{feed}}})",
        ]
    return [*lines, "print([output.shape for output in found])"]


def _imports(content: Mapping[str, Any], entry: Mapping[str, Any]) -> list[str]:
    runtime = "openvino" if entry["format"].startswith("openvino") else "onnxruntime"
    lines = [f"import numpy, {runtime}"]
    return [*lines, "from PIL import Image"] if content["task"] == "detect" else lines


def _inputs(content: Mapping[str, Any]) -> list[str]:
    shapes, kinds = content["network"]["input"], content["network"]["kinds"]
    if content["task"] != "detect":
        return [
            f'{_variable(place)} = numpy.zeros({tuple(shape)}, "{kind}")'
            for place, (shape, kind) in enumerate(zip(shapes, kinds, strict=True))
        ]
    ((_, channels, height, width),) = shapes
    mode = "L" if channels == 1 else "RGB"
    pixels = 'numpy.asarray(image, "float32") / 255'
    pixels += "" if channels == 1 else ").transpose(2, 0, 1)"
    pixels = f"({pixels}" if channels != 1 else pixels
    axes = "[None, None]" if channels == 1 else "[None]"
    wrapped = f"({pixels}){axes}" if channels == 1 else f"{pixels}{axes}"
    return [
        f'image = Image.open("photo.jpg").convert("{mode}").resize(({width}, {height}))',
        f"input0 = {wrapped}",
    ]


def _variable(place: int) -> str:
    return f"input{place}"
