"""Constructors that take the strengths of an augmentation, each by its own name."""

import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar, get_type_hints

from lightning_prune.detection.data.augment import Augmentation

Init = TypeVar("Init", bound=Callable[..., None])


def with_strengths(defaults: Augmentation) -> Callable[[Init], Init]:
    """Show the fields of an augmentation in a constructor's signature, in place of its ``**``.

    Whoever reads the signature, such as the command line, finds each strength with its range, and
    a new one is a field of `Augmentation`, and nothing else. The constructor is left as it is.

    Args:
        defaults: The augmentation whose values are the defaults.

    >>> class Photos:
    ...     @with_strengths(Augmentation(scale=0.5))
    ...     def __init__(self, root: str, **strengths: float) -> None: ...
    >>> list(inspect.signature(Photos).parameters)[:3]
    ['root', 'mosaic', 'degrees']
    >>> inspect.signature(Photos).parameters["scale"].default
    0.5
    """
    hints = get_type_hints(Augmentation, include_extras=True)
    strengths = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=getattr(defaults, field.name),
            annotation=hints[field.name],
        )
        for field in fields(Augmentation)
    ]

    def shown(init: Init) -> Init:
        signature = inspect.signature(init)
        *own, last = signature.parameters.values()
        assert last.kind is last.VAR_KEYWORD  # it takes what the signature shows
        taking: Any = init
        taking.__signature__ = signature.replace(parameters=[*own, *strengths])
        others = {name: hint for name, hint in init.__annotations__.items() if name != last.name}
        taking.__annotations__ = others | {each.name: each.annotation for each in strengths}
        return init

    return shown
