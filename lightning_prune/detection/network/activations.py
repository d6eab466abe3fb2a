"""Activations of the convolutions as text: `silu`, `leaky_relu(0.1)`."""

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import nn

_KINDS: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "silu": (nn.SiLU, {}),
    "relu": (nn.ReLU, {}),
    "relu6": (nn.ReLU6, {}),
    "leaky_relu": (nn.LeakyReLU, {"negative_slope": 0.01}),
    "elu": (nn.ELU, {"alpha": 1.0}),
    "celu": (nn.CELU, {"alpha": 1.0}),
    "selu": (nn.SELU, {}),
    "gelu": (nn.GELU, {"approximate": "none"}),
    "hardswish": (nn.Hardswish, {}),
    "hardsigmoid": (nn.Hardsigmoid, {}),
    "hardtanh": (nn.Hardtanh, {"min_val": -1.0, "max_val": 1.0}),
    "mish": (nn.Mish, {}),
    "sigmoid": (nn.Sigmoid, {}),
    "tanh": (nn.Tanh, {}),
    "softplus": (nn.Softplus, {"beta": 1.0, "threshold": 20.0}),
    "identity": (nn.Identity, {}),
}
"""Name -> class, and what it is called with beside `inplace`, with the defaults."""
_IN_PLACE = ("silu", "relu", "relu6", "hardswish")


def make_activation(text: str) -> nn.Module:
    """Build an activation.

    Args:
        text: Its name, with numbers in parentheses where they are not torch's defaults.

    Raises:
        ValueError: the name is unknown, or the numbers do not fit.

    >>> make_activation("leaky_relu(0.1)")
    LeakyReLU(negative_slope=0.1)
    """
    name, values = _parse(text)
    kind, defaults = _KINDS[name]
    options: dict[str, Any] = dict(zip(defaults, values, strict=False))
    if name in _IN_PLACE:
        options["inplace"] = True
    return kind(**options)


def canonical_activation(text: str) -> str:
    """Return the one spelling of an activation, without numbers that are torch's defaults.

    Raises:
        ValueError: the name is unknown, or the numbers do not fit.

    >>> canonical_activation("leaky_relu(0.01)"), canonical_activation("leaky_relu( .2 )")
    ('leaky_relu', 'leaky_relu(0.2)')
    """
    name, values = _parse(text)
    return _spell(name, values)


def describe_activation(path: str, attributes: Mapping[str, Any]) -> str:
    """Return the text of an activation that a pickled module names.

    Args:
        path: Dotted name of its class.
        attributes: Of the module.

    Raises:
        ValueError: it is none of those that are known.

    >>> describe_activation("torch.nn.modules.activation.LeakyReLU", {"negative_slope": 0.1})
    'leaky_relu(0.1)'
    """
    kind = path.rpartition(".")[2]
    for name, (known, defaults) in _KINDS.items():
        if known.__name__ == kind and path.startswith("torch.nn."):
            values = [attributes.get(key, default) for key, default in defaults.items()]
            _check(name, values)
            return _spell(name, values)
    known_names = ", ".join(known.__name__ for known, _ in _KINDS.values())
    learned = " (it has learned numbers of its own)" if kind == "PReLU" else ""
    raise ValueError(f"the activation {path or kind}{learned} is not read: only {known_names}")


def _parse(text: str) -> tuple[str, list[Any]]:
    found = re.fullmatch(r" *([a-z0-9_]{1,40}) *(?:\(([^()]{,80})\))? *", str(text))
    if found is None or found[1] not in _KINDS:
        raise ValueError(
            f"activation={str(text)[:60]!r} is unknown: pass one of {', '.join(_KINDS)}"
        )
    name, inner = found[1], found[2] or ""
    defaults = list(_KINDS[name][1].values())
    words = [word.strip() for word in inner.split(",")] if inner.strip() else []
    if len(words) > len(defaults):
        raise ValueError(
            f"activation={text!r} has {len(words)} numbers: {name} takes {len(defaults) or 'none'}"
        )
    values = [
        word if isinstance(default, str) else _number(word)
        for word, default in zip(words, defaults, strict=False)
    ]
    values += defaults[len(values) :]
    _check(name, values)
    return name, values


def _number(word: str) -> Any:
    try:
        return float(word)
    except ValueError:
        return word


def _check(name: str, values: list[Any]) -> None:
    for value, (key, default) in zip(values, _KINDS[name][1].items(), strict=True):
        if isinstance(default, str):
            fits = value in ("none", "tanh")
        else:
            real = isinstance(value, int | float) and not isinstance(value, bool)
            fits = real and math.isfinite(value)
        if not fits:
            raise ValueError(
                f"the activation {name} with {key}={str(value)[:40]!r} is not possible"
            )


def _spell(name: str, values: list[Any]) -> str:
    defaults = list(_KINDS[name][1].values())
    if values == defaults:
        return name
    words = [value if isinstance(value, str) else f"{value:g}" for value in values]
    exact = all(isinstance(v, str) or float(w) == v for v, w in zip(values, words, strict=True))
    if not exact:
        words = [value if isinstance(value, str) else repr(float(value)) for value in values]
    return f"{name}({', '.join(words)})"
