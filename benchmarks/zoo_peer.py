"""The same models by torch-pruning's magnitude pruner, at half the channels of every group."""

import time
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from zoo_judge import failure, kind_of

from lightning_prune.graph.forward_pass import call
from lightning_prune.graph.macs import count_macs

# Beyond these an output's channels are other channels than the layer's.
_PRODUCTS = ("Convolution", "Addmm", "Mm", "Bmm", "Baddbmm", "Linear", "ScaledDotProduct")


def output_layers(model: nn.Module, example: Any) -> list[nn.Module]:
    """Return the layers that produce the output, which who uses torch-pruning has to name.

    Those whose weights are the first met on the ways back from the outputs in autograd's graph;
    frozen layers are passed.

    >>> net = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3), nn.Sigmoid())
    >>> output_layers(net, torch.zeros(1, 2))
    [Linear(in_features=4, out_features=3, bias=True)]
    """
    owners = {id(p): m for m in model.modules() for p in m.parameters(recurse=False)}
    with torch.enable_grad():
        outputs = tree_leaves(call(model, example))
    stack = [out.grad_fn for out in outputs if isinstance(out, Tensor) and out.grad_fn is not None]
    seen: set[Any] = set()
    found: dict[int, nn.Module] = {}
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        inputs = [after for after, _ in node.next_functions if after is not None]
        if node.name().startswith(_PRODUCTS):
            weights = [w for w in map(_parameter, inputs) if w is not None and w.ndim > 1]
            found |= {id(owners[id(w)]): owners[id(w)] for w in weights if id(w) in owners}
            if weights or not node.name().startswith("Convolution"):
                continue
        stack += inputs
    return list(found.values())


def _parameter(node: Any) -> Tensor | None:
    """Return the parameter behind a node, also where it is transposed or viewed first."""
    for _ in range(4):
        if hasattr(node, "variable"):
            variable: Tensor = node.variable
            return variable
        inputs = [after for after, _ in node.next_functions if after is not None]
        if len(inputs) != 1 or not node.name().startswith(("TBackward", "Transpose", "View")):
            return None
        node = inputs[0]
    return None


def judge_torch_pruning(model: nn.Module, example: Any) -> dict[str, Any]:
    """Prune a model as its user would; say how far, or that it crashed.

    What the pruned model computes is not compared with anything: only that it runs.
    """
    import torch_pruning as tp

    whole = count_macs(model, example)
    outputs = output_layers(model, example)
    begin = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tp.pruner.BasePruner(
                model,
                example,
                importance=tp.importance.MagnitudeImportance(p=2),
                pruning_ratio=0.5,
                global_pruning=False,
                ignored_layers=outputs,
            ).step()
    except Exception as error:
        return failure("crashed", "pruner", error) | {"seconds": time.process_time() - begin}
    seconds = time.process_time() - begin
    try:
        left = count_macs(model, example) / max(1, whole)
    except Exception as error:
        return failure("crashed", "forward pass", error) | {"seconds": seconds}
    return {"kind": kind_of(left), "left": round(left, 4), "seconds": seconds, "remark": ""}
