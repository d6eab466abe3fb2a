"""Where the forward pass of a cut copy fails."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lightning_prune.graph.group import ChannelGroups
from lightning_prune.graph.names import plain_name
from lightning_prune.plan import PruningPlan
from lightning_prune.surgery.copy_module import copy_module
from lightning_prune.surgery.cut import cut_channels
from lightning_prune.surgery.trial_training import shortened

FAILS = "the forward pass of the cut network fails"


@dataclass(frozen=True)
class Failure:
    """Where a forward pass of a cut copy has failed.

    Attributes:
        reason: What failed, in one line.
        modules: Names of the modules that were running, the outermost first; empty where the cut
            itself failed.
        entered: How many calls of modules had begun by then.
        ended: How many had ended.
    """

    reason: str
    modules: tuple[str, ...]
    entered: int
    ended: int = 0

    def is_past(self, other: "Failure") -> bool:
        """Return whether the forward pass had come further than in another failure."""
        return (self.entered, self.ended) > (other.entered, other.ended)


def run_cut(net: nn.Module, run: Callable[[nn.Module], Any]) -> Failure | None:
    """Run a cut copy; return where it fails, None where it does not."""
    stack: list[str] = []
    entered = ended = 0

    def enter(name: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            nonlocal entered
            stack.append(name)
            entered += 1

        return hook

    def leave(*_: Any) -> None:
        nonlocal ended
        stack.pop()
        ended += 1

    handles = []
    for name, module in net.named_modules():
        handles.append(module.register_forward_pre_hook(enter(plain_name(name)), prepend=True))
        handles.append(module.register_forward_hook(leave))
    try:
        with torch.no_grad():
            run(net)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a user's code raises
        return Failure(f"{FAILS}: {shortened(error)}", tuple(stack), entered, ended)
    finally:
        for handle in handles:
            handle.remove()
    return None


def cut_and_run(
    dense: nn.Module, groups: ChannelGroups, plan: PruningPlan, run: Callable[[nn.Module], Any]
) -> Failure | None:
    """Cut a copy and run it; return where that fails, None where it does not."""
    net = copy_module(dense)
    try:
        cut_channels(net, groups, plan)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # numbers that would not stay whole, norms of no known kind
        return Failure(f"{FAILS}: {shortened(error)}", (), -1)
    return run_cut(net, run)
