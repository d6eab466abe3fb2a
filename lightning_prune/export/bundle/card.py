"""The card of a bundle, for people."""

from collections.abc import Mapping
from typing import Any

from lightning_prune.export.bundle.snippets import snippet

_TITLE = "# {name}, in {count}\n"


def card(content: Mapping[str, Any]) -> str:
    """Return the Markdown text of a bundle.

    Args:
        content: That of ``bundle.json``.
    """
    files = content["files"]
    lines = [_TITLE.format(name=content["model"], count=_formats(len(files)))]
    lines += [*_pruned(content), ""]
    lines += ["| file | runs in | MB | compared with the checkpoint |", "|---|---|---|---|"]
    for entry in files:
        names = " + ".join(f"`{one['name']}`" for one in entry["files"])
        size = sum(one["bytes"] for one in entry["files"]) / 1e6
        gate = entry["gate"]["sentence"]
        lines.append(f"| {names} | {entry['runtime']} | {size:.2f} | {gate} |")
    for kind, reason in content["refused"].items():
        lines.append(f"| not written: {kind} | | | {reason} |")
    lines += ["", *_input_lines(content)]
    for entry in files:
        lines += ["", f"## `{entry['file']}`", "", "```python", *snippet(entry, content), "```"]
    lines += ["", "## Digests and versions", "", "```text"]
    lines += [f"{one['sha256']}  {one['name']}" for entry in files for one in entry["files"]]
    lines += ["```", ""]
    made = ", ".join(f"{name} {found}" for name, found in content["versions"].items())
    lines.append(f"Written by lightning-prune {content['lightning_prune']} with {made}.")
    return "\n".join(lines) + "\n"


def _formats(count: int) -> str:
    return "1 format" if count == 1 else f"{count} formats"


def _pruned(content: Mapping[str, Any]) -> list[str]:
    network, dense = content["network"], content.get("dense")
    text = f"{network['class']}, {network['macs'] / 1e6:.0f} million MACs for an input of "
    text += f"{_shapes(network['input'])}, {network['parameters'] / 1e6:.3f} million parameters"
    if not dense or dense["parameters"] == network["parameters"]:
        return [f"{text}. Nothing was pruned. From `{content['checkpoint']}`."]
    macs = network["macs"] / dense["macs"]
    parameters = network["parameters"] / dense["parameters"]
    return [
        f"{text}. Channels were pruned: {macs:.1%} of the MACs and {parameters:.1%} of the "
        f"parameters of the dense network are left. From `{content['checkpoint']}`."
    ]


def _shapes(shapes: list[list[int]]) -> str:
    return ", ".join(" x ".join(map(str, shape)) for shape in shapes)


def _input_lines(content: Mapping[str, Any]) -> list[str]:
    if content["task"] != "detect":
        return ["Inputs are those of the checkpoint's `forward`."]
    names = ", ".join(content["names"])
    return [
        "Images are RGB in [0, 1], (batch, channels, height, width), scaled into a square whose "
        "rest is grey (114). Outputs are (batch, 4 + classes, anchors): centre x, centre y, width, "
        "height in pixels, then the probabilities of the classes, before non-maximum suppression. "
        f"Classes: {names}."
    ]
