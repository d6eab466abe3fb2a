"""Put NaN into random channels of library models, and compare where it goes with the groups.

    python benchmarks/nan_oracle.py                            # the 60 models
    python benchmarks/nan_oracle.py tv timm:resnet18           # libraries, or single models
    python benchmarks/nan_oracle.py --table docs/nan_oracle.md

20 channels of random groups of each model: what the groups' consumers claim must be what NaN
reaches (``lightning_prune.testing.nan_oracle``). The groups are those of the labels, before any
trial. A model has a process of its own with 600 s of processor time.
"""

import argparse
import importlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from zoo_models import make, selected
from zoo_process import Limited

from lightning_prune.graph.trace import trace_groups
from lightning_prune.testing import nan_oracle

RESULTS = Path(__file__).resolve().parent / "results" / "nan_oracle.json"
_MODELS = """
tv:resnet18 tv:mobilenet_v3_small tv:shufflenet_v2_x0_5 tv:convnext_tiny tv:googlenet
tv:squeezenet1_0 tv:efficientnet_b0 tv:regnet_y_400mf tv:densenet121 tv:mnasnet0_5 tv:mobilenet_v2
tv:swin_t tv:vit_b_32 timm:resnet26t timm:resnetaa50 timm:ecaresnet26t timm:resnet50_gn
timm:seresnet50 timm:lcnet_050 timm:convnextv2_atto timm:regnetz_005 timm:nf_resnet26
timm:cs3darknet_s timm:dla34 timm:hrnet_w18_small timm:repvgg_a0 timm:fastvit_sa12
timm:ghostnetv3_050 timm:poolformer_s12 timm:efficientformer_l1 timm:mixer_s32_224 timm:test_vit
timm:starnet_s050 timm:dpn48b timm:mobilevitv2_050 timm:rexnet_100 timm:hgnet_tiny
timm:efficientvit_m0 timm:xcit_nano_12_p16_224 timm:res2net50_26w_4s timm:edgenext_xx_small
timm:levit_128s ul:yolov8n ul:yolov8n-seg ul:yolov5n ul:yolo11n ul:yolov10n ul:yolov3-tiny
smp:Unet smp:UnetPlusPlus smp:FPN smp:DeepLabV3Plus smp:Linknet hf:vit hf:bert hf:distilbert
hf:gpt2 hf:llama hf:wav2vec2 hf:segformer hf:convnext tvseg:lraspp_mobilenet_v3_large
tvseg:fcn_resnet50+aux tvvid:r3d_18
"""
MODELS = _MODELS.split()
LIBRARIES = {
    "timm": "timm",
    "ul": "ultralytics.nn.tasks",
    "smp": "segmentation_models_pytorch",
    "hf": "transformers.models.auto.modeling_auto",
}
CLASSES, SECONDS, MEGABYTES = 20, 600, 12000
HEAD = (
    "# Channels followed by NaN",
    "NaN is put into one channel of a float64 copy with scrambled weights, in all rows that its "
    "group claims of the layers that make or carry it. It runs through everything that works on "
    "channels one by one; where a layer sums over channels, the columns of the weight that meet it "
    "are noted, and it goes no further. Right is: these columns are exactly those that the group "
    "claims; both sides of each sum, product and norm on the way have NaN at the same places; "
    "none is in the output. This knows none of the rules by which groups are found "
    "(`lightning_prune.testing.nan_oracle`). `python benchmarks/nan_oracle.py --table "
    "docs/nan_oracle.md` writes this page.",
    "Places: positions of consumers' input axes that were claimed, and all observed. Mixed: "
    "channels that a norm, or another statistic over channels, takes in; NaN is stopped there. "
    "Left out: tensors (or whole channels) that no pass can compare: training alone takes them, or "
    "their weight is computed from the input.",
)
COLUMNS = ("model", "groups", "channels", "places", "mixed", "claimed = observed", "left out", "s")


def judge(name: str) -> dict[str, Any]:
    """Run the oracle on a model of the zoo; return plain data."""
    torch.set_num_threads(1)
    model, example = make(name)
    groups = trace_groups(model, example)
    start = time.process_time()
    found = nan_oracle(model, example, groups, CLASSES)
    return {
        "groups": len(groups),
        "channels": found.classes,
        "places": found.places,
        "mixed": found.mixed,
        "mismatches": [str(mismatch) for mismatch in found.mismatches],
        "wrong": len({(m.group, m.channel) for m in found.mismatches}),
        "left_out": dict(found.not_compared),
        "seconds": round(time.process_time() - start, 1),
    }


def page(rows: dict[str, dict[str, Any]]) -> str:
    """Return the results as Markdown."""
    done = {name: row for name, row in rows.items() if "channels" in row}
    wrong = sum(row["wrong"] for row in done.values())
    channels = sum(row["channels"] for row in done.values())
    places = sum(row["places"] for row in done.values())
    lines = [
        *(text for part in HEAD for text in (part, "")),
        f"{len(done)} models, {channels} channels, {places} places: {channels - wrong} channels "
        f"are right, {wrong} are not.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + "|".join(["---"] + ["---:"] * (len(COLUMNS) - 1)) + "|",
    ]
    for name, row in rows.items():
        if "channels" not in row:
            lines.append(
                f"| {name} | no result: {row.get('error', row.get('hang', '?'))[:120]} " + "|" * 7
            )
            continue
        right = f"{row['channels'] - row['wrong']} of {row['channels']}"
        cells = (
            name, row["groups"], row["channels"], row["places"], row["mixed"], right,
            len(row["left_out"]), row["seconds"],
        )  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    odd = [(name, text) for name, row in done.items() for text in row["mismatches"][:5]]
    if odd:
        lines += ["", "Mismatches (at most five a model):", ""]
        lines += [f"- {name}: {text[:300]}" for name, text in odd]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Judge models one after the other; keep results after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", help="libraries, or library:model; default: 60 models")
    parser.add_argument("--table", type=Path, help="a file of Markdown to write")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where results are kept")
    parser.add_argument("--resume", action="store_true", help="leave out what has a result")
    args = parser.parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", YOLO_OFFLINE="1", YOLO_VERBOSE="false")
    names = selected(args.models) if args.models else MODELS
    for library in {LIBRARIES.get(name.partition(":")[0], "torchvision.models") for name in names}:
        with suppress(ImportError):  # once, and not in each model's process
            importlib.import_module(library)
    rows: dict[str, dict[str, Any]] = {}
    if args.results.exists():
        rows = json.loads(args.results.read_text())
    for name in names:
        if args.resume and "channels" in rows.get(name, {}):
            continue
        found = Limited(lambda name=name: judge(name), SECONDS, MEGABYTES).wait()
        rows[name] = found.get("value", found)
        print(name, json.dumps(rows[name])[:600], flush=True)
        args.results.write_text(json.dumps(rows, indent=1) + "\n")
        if args.table is not None:
            args.table.write_text(page(rows))


if __name__ == "__main__":
    main()
