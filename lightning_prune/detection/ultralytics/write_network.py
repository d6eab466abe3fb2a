"""Write a network as a `.pt` that `YOLO(file)` loads, without this package."""

import base64
import copy
import io
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from lightning_prune.detection.ultralytics.build_network import build_network, set_halves
from lightning_prune.detection.ultralytics.module import PREFIX, UltralyticsModule
from lightning_prune.detection.ultralytics.network_yaml import with_note
from lightning_prune.detection.ultralytics.package import settings_of, their_module
from lightning_prune.detection.ultralytics.their_output import is_transformer
from lightning_prune.export.formats import FORMATS
from lightning_prune.export.output_difference import output_difference
from lightning_prune.export.write_checked import allowed_difference, write_checked
from lightning_prune.surgery.architecture import RECORD


def export_ultralytics(
    model: nn.Module,
    path: str | Path,
    example_input: Any,
    input_names: tuple[str, ...] | None = None,
    batch: int | None = None,
    half: bool = False,
    opset: int | None = None,
    metadata: Mapping[str, str] | None = None,
    tolerance: float | None = None,
    size_step: int | None = None,
) -> float:
    """Write a ``.pt`` of Ultralytics; `YOLO` loads it before it is written, and must agree.

    What was cut is in the sizes of the tensors and modules, so that their package alone validates,
    predicts, tracks and exports with it. Its YAML describes the dense network: in place of the
    first layer it says which trainer keeps the widths.

    Args:
        model: An ``UltralyticsModule``, dense or cut, on the CPU, in float32.
        path: Where to write; the file appears whole or not at all.
        example_input: Images (B, C, H, W).
        input_names: Not used, as ``batch``, ``opset`` and ``metadata``: a format of any size.
        batch: See above.
        half: Weights in 16 bits, as in files that their trainers write.
        opset: See above.
        metadata: See above.
        tolerance: Largest difference allowed; None: 0.001, in half precision 0.1.
        size_step: Another size of images is compared too, multiples of this.

    Returns:
        The difference that was found.

    Raises:
        ValueError: it is another module, or a layer of it is of this package.
        AssertionError: their model computes something else. Nothing is written.
    """
    allowed = allowed_difference(tolerance, half)
    if not isinstance(model, UltralyticsModule):
        raise ValueError(
            f"--format ultralytics writes networks of the installed package, and this is a "
            f"{type(model).__name__}: train and prune the file with model=ultralytics"
        )
    content = checkpoint_bytes(model, half)
    twin = copy.copy(model)
    with tempfile.TemporaryDirectory() as folder:
        twin_path = Path(folder) / "network.pt"
        twin_path.write_bytes(content)
        kind = "RTDETR" if is_transformer(_network(model)) else "YOLO"
        loaded = getattr(their_module(), kind)(str(twin_path)).model.float().eval()
    # The copy shares all with the module but its network.
    twin._modules = {**model._modules, "network": loaded}

    def run(tensors: Sequence[Tensor]) -> list[Tensor]:
        with torch.no_grad():
            return [leaf for leaf in tree_leaves(twin(*tensors)) if isinstance(leaf, Tensor)]

    return write_checked(
        path, content, FORMATS["ultralytics"],
        lambda example, sizes: output_difference(run, model, example, sizes, half=half),
        example_input, None, allowed, size_step,
    )  # fmt: skip


def checkpoint_bytes(module: UltralyticsModule, half: bool = False) -> bytes:
    """Return a checkpoint of their kind: the network pickled by their classes.

    Raises:
        ValueError: a layer of the network is not of their package or of torch.
    """
    network: Any = copy.deepcopy(_network(module)).cpu()
    for name, layer in network.named_modules():
        if type(layer).__module__.startswith("lightning_prune."):
            raise ValueError(
                f"{name} is a {type(layer).__name__} of this package, which a file for theirs "
                "cannot hold: prune with norms=plain, or leave this layer out"
            )
        layer._forward_hooks.clear()
        layer._forward_pre_hooks.clear()
    record = module.state_dict().get(RECORD)
    hparams: Any = module.hparams
    if record is not None:
        dense = build_network(
            hparams["kind"], hparams["yaml"], hparams["num_classes"], hparams["in_channels"]
        )
        set_halves(network, dense)
        text = base64.b64encode(record.cpu().numpy().tobytes()).decode()
        network.yaml = with_note(
            {**hparams["yaml"], "nc": hparams["num_classes"]}, text, hparams["activations"]
        )
    settings = dict(vars(settings_of(network.task, imgsz=hparams["image_size"], mode="train")))
    network.args = settings
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    content = {
        "epoch": -1, "best_fitness": None, "model": network.half() if half else network,
        "ema": None, "updates": None, "optimizer": None, "train_args": settings,
        "date": datetime.now(UTC).isoformat(), "version": their_module().__version__,
    }  # fmt: skip
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _network(module: UltralyticsModule) -> nn.Module:
    network: nn.Module = module.get_submodule(PREFIX.rstrip("."))
    return network
