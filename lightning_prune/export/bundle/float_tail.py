"""The end of a network that stays in floating point: what turns the last layers' values around."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def behind_layers(
    order: Sequence[Hashable],
    consumers: Mapping[Hashable, Iterable[Hashable]],
    layers: frozenset[Hashable],
) -> list[Hashable]:
    """Return the nodes from which no layer with weights is reached any more.

    Of a detector that is the decode of its boxes and the concatenation with the scores: one scale
    for boxes of hundreds of pixels and scores below 1 leaves nothing of the scores.

    Args:
        order: All nodes, each before those that use what it makes.
        consumers: Node -> those that use what it makes.
        layers: Nodes that multiply with learned weights.

    >>> behind_layers("abcd", {"a": "b", "b": "c", "c": "d"}, frozenset("b"))
    ['c', 'd']
    """
    leads_on: set[Hashable] = set()
    for node in reversed(order):
        if node in layers or any(one in leads_on for one in consumers.get(node, ())):
            leads_on.add(node)
    return [node for node in order if node not in leads_on]


def onnx_float_nodes(proto: Any) -> list[str]:
    """Return the names of the nodes of an ONNX model that stay in floating point.

    Those behind the last layers, and products of activations with one another (attention).

    Args:
        proto: The model; every node has a name of its own.
    """
    from onnx import numpy_helper

    weights = {one.name: one for one in proto.graph.initializer}
    nodes = list(proto.graph.node)
    makers = {out: node.name for node in nodes for out in node.output}
    consumers: dict[Hashable, list[Hashable]] = {}
    for node in nodes:
        for given in node.input:
            if given in makers:
                consumers.setdefault(makers[given], []).append(node.name)
    layers, products = set(), []
    for node in nodes:
        if node.op_type not in _LAYERS:
            continue
        if len(node.input) < 2 or not any(given in weights for given in node.input[:2]):
            products.append(node.name)
        elif not (
            node.op_type == "Conv" and is_expectation(numpy_helper.to_array(weights[node.input[1]]))
        ):
            layers.add(node.name)
    order = [node.name for node in nodes]
    tail = behind_layers(order, consumers, frozenset(layers))
    return [str(name) for name in dict.fromkeys([*tail, *products])]


def is_expectation(weight: np.ndarray) -> bool:
    """Return whether a convolution's weights are 0, 1, 2, ...: the mean of a distribution.

    Ultralytics' detectors decode their boxes with one; nothing in it was learned.

    >>> is_expectation(np.arange(16.0).reshape(1, 16, 1, 1)), is_expectation(np.ones((1, 3, 1, 1)))
    (True, False)
    """
    flat = np.asarray(weight).ravel()
    return flat.size > 1 and bool(np.array_equal(flat, np.arange(flat.size)))
