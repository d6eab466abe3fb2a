"""One process decides for all."""

from collections.abc import Callable
from typing import TypeVar

from lightning_prune.engine.front_end import FrontEnd
from lightning_prune.policies.criteria.non_finite_importance import NonFiniteImportanceError

T = TypeVar("T")


def agree(front: FrontEnd, decide: Callable[[], T]) -> tuple[T | None, str]:
    """Return what one process decides, on all of them, or why it cannot.

    Args:
        front: Whose processes they are.
        decide: Called where ``front.decides``; may raise ``NonFiniteImportanceError``.
    """
    chosen: T | None = None
    failure = ""
    if front.decides:
        try:
            chosen = decide()
        except NonFiniteImportanceError as error:
            failure = str(error)
    # One message for both: the other processes cannot know which of them comes.
    return front.agreed((chosen, failure))
