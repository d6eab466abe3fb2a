"""Print something once, however many processes a run has."""

import os
import sys
from typing import TextIO

# Where Lightning looks for the rank, in its order.
_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")


def say(text: str, stream: TextIO | None = None) -> None:
    """Print a line on the first process, at once.

    Args:
        text: What to say.
        stream: Where to; None: standard output.
    """
    if is_first_process():
        print(text, file=stream or sys.stdout, flush=True)


def is_first_process() -> bool:
    """Return whether this is the process of a distributed run that speaks.

    It needs no Lightning, which takes seconds to import: where Lightning is there, it is asked.
    """
    ranks = sys.modules.get("lightning_utilities.core.rank_zero")
    rank = getattr(getattr(ranks, "rank_zero_only", None), "rank", None)
    if rank is None:
        rank = next((os.environ[name] for name in _RANKS if name in os.environ), 0)
    return str(rank) == "0"
