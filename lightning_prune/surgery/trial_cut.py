"""Masks and the cut tried on a copy, so that what cannot be cut is known before training."""

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune.graph.forward_pass import call, untouched
from lightning_prune.graph.group import ChannelGroups, Group
from lightning_prune.graph.isomorphic import isomorphic_sets
from lightning_prune.graph.names import layer_of
from lightning_prune.surgery.compare import eval_outputs, largest_difference, noise_like
from lightning_prune.surgery.copy_module import copy_module
from lightning_prune.surgery.cut import cut_channels
from lightning_prune.surgery.cut_run import FAILS, Failure, cut_and_run
from lightning_prune.surgery.layer_samples import LayerSamples
from lightning_prune.surgery.mask import ChannelMask
from lightning_prune.surgery.repair import Repair
from lightning_prune.surgery.scaled_queries import with_scaled_queries
from lightning_prune.surgery.silent_sizes import with_silent_sizes
from lightning_prune.surgery.trial_copies import countable, run_shapes, trial_copy, without_values
from lightning_prune.surgery.trial_example import cast, is_told
from lightning_prune.surgery.trial_macs import TrialMacs
from lightning_prune.surgery.trial_plan import plan_of, trial_plan
from lightning_prune.surgery.trial_training import Run, TrialTraining, shortened

Forward = Callable[[nn.Module, Any], Any]
Notify = Callable[[str], None]

_TOLERANCE = 1e-4
_ROUNDING = 1e-2  # a layer's output differs by less where rounding is all that differs
SECONDS = 45.0
_OF_REPAIR = 0.7  # of the time: so much is left to find what can be cut as it is
DIFFERS = "the cut network gives something else than the masked one"
_HALF = {torch.float16, torch.bfloat16}
_NAMED = 3  # groups that a warning names
_FEW = 4  # groups of one kind that are each tried before the rest is judged by them


def try_groups(
    module: nn.Module,
    example: Any,
    groups: ChannelGroups,
    forward: Forward | None = None,
    step: Run | None = None,
    notify: Notify | None = None,
    seconds: float = SECONDS,
    attributes: bool = True,
) -> tuple[ChannelGroups, dict[str, str]]:
    """Mask and cut groups on a copy; say which can be cut, and why the others cannot.

    The copy's weights are scrambled: zero-initialised branches and flat attention hide faults. A
    group is accepted if the cut copy gives in eval mode what the masked one gives (1e-4), also in
    every layer that is left whole, if its forward pass runs in training mode, and if its MACs are
    those predicted. All groups are cut at once. Where a forward pass fails, the numbers that state
    widths in the module where it does (``num_heads``, a split's sizes) are changed along, if that
    helps; where outputs differ, groups are taken apart by halves. Model, random states and hooks
    are left as they were.

    Who defines ``on_channels_pruned`` is notified of the cut and adapts what is theirs to it: hooks
    of such a callback are not called in the trial, and of such a model no training is tried.

    Args:
        module: The live model.
        example: Its input: a tensor, or a tuple or dict of arguments.
        groups: Its channel groups.
        forward: How to call the model, ``forward(model, example)``; None: the plain call.
        step: What training does with the model besides (``training_step`` on a batch), called with
            a cut copy in training mode; left out where the copy as it is cannot do it.
        notify: Called with a line on what is tried, where it takes more than one pass.
        seconds: Processor time after which groups that are not yet tried are refused.
        attributes: Change numbers that modules hold (``num_heads``) along; False: groups that need
            it are refused.

    Returns:
        The groups that can be cut (the layers of the others in ``refused``), and the reason of
        each group that cannot.

    >>> class Flat(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 6, 1)
    ...         self.c = nn.Linear(6 * 4, 2)
    ...     def forward(self, x):
    ...         return self.c(self.b(self.a(x)).view(-1, 6 * 4))
    >>> from lightning_prune.graph.trace import trace_groups
    >>> net, x = Flat(), torch.zeros(1, 3, 2, 2)
    >>> accepted, refused = try_groups(net, x, trace_groups(net, x))
    >>> list(accepted), list(refused)
    (['a'], ['b'])
    """
    if not groups:
        return groups, {}
    with untouched(module):
        trial = _Trial(module, example, groups, forward or call, step, notify, seconds, attributes)
        good = trial.passing()
        costs = TrialMacs(
            trial.dense, trial.groups, trial.plan, trial.example, trial.forward, trial.passed
        )
        trial.refused |= (miscounted := costs.miscounted(good))
        good = [name for name in good if name not in miscounted]
    accepted = {name: group for name, group in trial.groups.items() if name in good}
    refused = {**groups.refused, **_refused_layers(trial, groups, accepted)}
    return replace(groups, groups=accepted, refused=refused, others={}), trial.refused


def _refused_layers(
    trial: "_Trial", groups: ChannelGroups, accepted: Mapping[str, Group]
) -> dict[str, str]:
    """Return why layers of refused groups, and of those joined to them, keep their channels."""
    made = {layer_of(holder) for group in accepted.values() for holder in group.producers}
    reasons = dict(trial.layers)
    for name, reason in [*trial.replaced.items(), *trial.refused.items()]:
        for tried in (groups.get(name), trial.groups.get(name)):  # alone, and with those joined
            layers = map(layer_of, () if tried is None else tried.producers)
            reasons |= dict.fromkeys(layers, reason)
    return {layer: reason for layer, reason in reasons.items() if layer not in made}


def what_is_left_out(refused: dict[str, str]) -> str:
    """Return the warning about groups that a trial refused.

    >>> what_is_left_out({"conv1": "its forward pass fails"})
    '1 group of channels keeps its width, because a trial cut failed: conv1: its forward pass fails'
    """
    some = "; ".join(f"{name}: {why}" for name, why in list(refused.items())[:_NAMED])
    more = f"; and {len(refused) - _NAMED} more" if len(refused) > _NAMED else ""
    many = f"{len(refused)} groups of channels keep their width"
    one = "1 group of channels keeps its width"
    return f"{one if len(refused) == 1 else many}, because a trial cut failed: {some}{more}"


class _Trial:
    """A scrambled copy of a model, cut again and again in other places."""

    def __init__(
        self,
        model: nn.Module,
        example: Any,
        groups: ChannelGroups,
        forward: Forward,
        step: Run | None,
        notify: Notify | None,
        seconds: float,
        attributes: bool,
    ) -> None:
        self.groups, self.forward, self.notify = groups, forward, notify
        self.attributes = attributes
        self._end = time.process_time() + seconds
        self._end_of_repair = self._end - seconds * (1 - _OF_REPAIR)
        self._shapes: tuple[nn.Module, Any] | None = None
        self.refused: dict[str, str] = {}
        self.layers: dict[str, str] = {}  # of groups that were joined before they were refused
        self.replaced: dict[str, str] = {}  # by groups of the same layers by another factor
        self.halved = False
        self.passed: dict[frozenset[str], nn.Module] = {}  # the last cut copy without a fault
        self.dense, self.example = trial_copy(model, noise_like(example), forward)
        self.plan = trial_plan(groups)
        self.training = (
            None if is_told(model) else TrialTraining(self.dense, self.example, forward, step)
        )

    def passing(self) -> list[str]:
        """Return the names of the groups that can be cut together."""
        names = list(self.groups)
        reason = self.fault(names)
        if reason is None:
            return names
        if reason.startswith(FAILS) and self.attributes:
            self._repair(self.groups.groups)
            again = {
                other.name: other
                for name in self.refused
                for other in self.groups.others.get(name, ())
            }
            if again and not self._is_late_for_repair():
                refused, self.refused = self.refused, {}
                self._repair({**self.groups.groups, **again})
                both = {**refused, **self.refused}
                self.refused = {n: why for n, why in both.items() if n not in self.groups}
                self.replaced = {n: why for n, why in both.items() if n in self.groups}
        good = self.sift(self.families(list(self.groups)))
        return self.agreeing([*good, *self._mended()])

    def _mended(self) -> list[str]:
        """Return the groups that can be cut once what gives no error changes along."""

        def is_right(groups: Mapping[str, Group], name: str) -> bool:
            before, self.groups = self.groups, replace(self.groups, groups=dict(groups))
            right = not self.is_late() and self.fault([name]) is None
            self.groups = before
            return right

        mended: list[str] = []
        mends = [with_scaled_queries]
        if self.attributes:
            mends.append(partial(with_silent_sizes, self.dense))
        for mend in mends:
            wrong = [n for n, why in self.refused.items() if n in self.groups and DIFFERS in why]
            found = mend(self.groups, wrong, is_right)
            self.groups = replace(self.groups, groups={**self.groups.groups, **found})
            for name in found:
                del self.refused[name]
            mended += found
        return mended

    def is_late(self) -> bool:
        """Return whether the time is over."""
        return time.process_time() > self._end

    def _is_late_for_repair(self) -> bool:
        return time.process_time() > self._end_of_repair

    def _repair(self, groups: Mapping[str, Group]) -> None:
        """Find the numbers that change with groups, and leave out those that cannot be cut."""
        if self.notify is not None:
            self.notify(f"trying what else has to change with {len(groups)} groups of channels")
        self._shapes = without_values(self.dense, self.example, self.forward, groups)
        repair = Repair(self.dense, groups, self._attempt, self._is_late_for_repair)
        repair.run()
        if self._is_late_for_repair() and self.notify is not None:
            self.notify("the time for that is over: some groups may be refused that need more")
        self.refused |= repair.refused
        self.layers |= repair.layers
        self.groups = replace(self.groups, groups=repair.groups)
        self.plan = trial_plan(self.groups)

    def _attempt(self, groups: Mapping[str, Group]) -> Failure | None:
        """Cut a copy by some groups, and run it; where the model can, without values."""
        net, example, run = self.dense, self.example, self.forward
        if self._shapes is not None:
            net, example = self._shapes
            run = partial(run_shapes, forward=self.forward)
            groups = {name: countable(group, net) for name, group in groups.items()}
        known = replace(self.groups, groups=dict(groups))
        return cut_and_run(net, known, trial_plan(groups), lambda cut: run(cut, example))

    # --- one trial ------------------------------------------------------------------------

    def fault(self, names: Sequence[str], dtype: torch.dtype | None = None) -> str | None:
        """Cut these groups on a copy; return what is wrong then, None where nothing is."""
        net, plan, example = copy_module(self.dense), plan_of(self.plan, names), self.example
        if dtype is not None:
            net, example = net.to(dtype), cast(example, dtype)
        mixed = tuple({n for name in names for n in self.groups[name].mixed_by})
        members = [member for name in names for member in self.groups[name].members]
        whole = LayerSamples(net, {m.layer for m in members if m.role != "consumer"})
        try:
            ChannelMask(net, self.groups, plan).apply()
            with whole.recording():
                before = eval_outputs(net, example, mixed, self.forward)
            cut_channels(net, self.groups, plan)
            with whole.recording() as again:
                after = eval_outputs(net, example, mixed, self.forward)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            return f"{FAILS}: {shortened(error)}"
        layer, worst = whole.first_difference(again, _TOLERANCE)
        if layer is None:
            worst = _difference(before, after)
        kinds = {output.dtype for output in before if output.is_floating_point()}
        if worst <= max([_TOLERANCE, *(8 * torch.finfo(kind).eps for kind in kinds & _HALF)]):
            if dtype is not None:
                return None
            found = None if self.training is None else self.training.fault(net)
            if found is None:
                self.passed = {frozenset(names): net}
            return found
        if dtype is None and torch.float32 in kinds and (layer is None or worst < _ROUNDING):
            # Rounding may be all that differs; a network that casts to float itself stays refused.
            found = self.fault(names, torch.float64)
            if found is None or not found.startswith(FAILS):
                return found
        where = "in its output" if layer is None else f"first in layer {layer!r}"
        return (
            f"{DIFFERS}, {where} (by {worst:.2g} of "
            "the largest value): some operation mixes or reorders its channels"
        )

    # --- many trials ----------------------------------------------------------------------

    def families(self, names: list[str]) -> list[list[str]]:
        """Group the groups that repeat: equal structure, and names that differ in numbers."""
        sets = isomorphic_sets(self.dense, self.groups, names)
        found: dict[tuple[str, int], list[str]] = {}
        for name, kind in zip(names, sets, strict=True):
            found.setdefault((re.sub(r"\d+", "#", name), kind), []).append(name)
        return list(found.values())

    def sift(self, families: list[list[str]]) -> list[str]:
        """Return the names of the groups that can be cut, halving what cannot be cut together."""
        names = [name for family in families for name in family]
        if self.is_late():
            late = "the trial took longer than it may: it was not tried"
            self.refused |= dict.fromkeys(names, late)
            return []
        reason = self.fault(names) if names else None
        if reason is None:
            return names
        if len(names) == 1:
            self.refused[names[0]] = reason
            return []
        if self.notify is not None and not self.halved:
            self.notify(f"trying which of {len(names)} groups of channels cannot be cut")
        self.halved = True
        if len(families) > 1:
            half = len(families) // 2
            return self.sift(families[:half]) + self.sift(families[half:])
        if len(names) > _FEW and self._all_fail(names):
            return []
        half = len(names) // 2
        return self.sift([names[:half]]) + self.sift([names[half:]])

    def _all_fail(self, names: list[str]) -> bool:
        """Judge a long row of repeated groups by its first and its last."""
        first, last = self.fault(names[:1]), self.fault(names[-1:])
        if first is None or last is None:
            return False
        self.refused[names[0]], self.refused[names[-1]] = first, last
        for name in names[1:-1]:
            self.refused[name] = f"as {names[0]}: {first}"
        return True

    def agreeing(self, names: list[str]) -> list[str]:
        """Leave out groups until the rest can be cut at once."""
        names = [name for name in self.groups if name in set(names)]
        while self.halved and names and (reason := self.fault(names)) is not None:
            good, bad = 0, len(names)  # the first `good` can be cut together, the first `bad` not
            while bad - good > 1:
                middle = (good + bad) // 2
                if self.fault(names[:middle]) is None:
                    good = middle
                else:
                    bad = middle
            culprit = names.pop(bad - 1)
            self.refused[culprit] = f"together with other groups, {reason}"
        return names


def _difference(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    if len(before) != len(after):
        return math.inf
    return largest_difference(before, after)
