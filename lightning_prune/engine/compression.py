"""From a trained network and some pictures to a narrower one: no labels, no training recipe."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune.engine.calibration_set import (
    CalibrationSet,
    first_of,
    mirrored,
    within_memory,
)
from lightning_prune.engine.compressed import Compressed
from lightning_prune.engine.kept_features import kept_features
from lightning_prune.engine.label_free_steps import StepsTaken, label_free_steps
from lightning_prune.engine.output_agreement import agreement, outputs_of
from lightning_prune.engine.verified_cut import verified_cut
from lightning_prune.functional.reconstruction.elimination import Elimination
from lightning_prune.functional.widths.least_loss import least_loss_widths
from lightning_prune.functional.widths.width import least_width, narrower_widths
from lightning_prune.graph.forward_pass import call, untouched
from lightning_prune.graph.group import ChannelGroups
from lightning_prune.graph.macs import MacModel
from lightning_prune.graph.model_inputs import batch_length
from lightning_prune.plan import PruningPlan
from lightning_prune.policies.selection.repaired_losses import repaired_losses
from lightning_prune.surgery.build_groups import build_groups
from lightning_prune.surgery.copy_module import copy_module
from lightning_prune.surgery.cut import cut_channels
from lightning_prune.surgery.layer_matrix import is_matrix
from lightning_prune.surgery.masked_refit import masked_refit, restore
from lightning_prune.surgery.places import Places, places_for
from lightning_prune.surgery.walked_refit import WalkedRefit

_ENOUGH = 128
# Of the images, and at least so many: enough to distinguish good widths from bad ones.
_SEARCHED = 0.25
_FEW = 16
_HALVINGS = 6


def _all(items: Iterable[Any], _title: str = "") -> Iterable[Any]:
    return items


class Compression:
    """What is known of a dense network before it is made smaller, to one size or to several.

    Groups, what their consumers lose at each width, and what the dense network says of the pictures
    that are held back.

    Args:
        module: The dense network, any module; a LightningModule is one.
        batches: What its loader gives, labels included or not; all of them are kept in memory.
        layers: Names or patterns of the layers whose channels may go; None: all.
        round_to: Widths are multiples of it.
        least: Smallest fraction of a group's channels that stays, in [0, 1).
        mirror: Whether mirrored images (the last dimension turned round) are fitted as well where
            there are fewer than 128.
        ridge: Regularization of the refits as a fraction of the mean squared input, positive.
        powers: Exponents of the rule for widths (``least_loss_widths``) that are tried.
        seed: Of the places and of the order of the steps.
        progress: ``(items, title) -> items``, which shows how far it has come.

    Raises:
        ValueError: no channel can go, or there is no image.
    """

    def __init__(
        self,
        module: nn.Module,
        batches: Iterable[Any],
        *,
        layers: Sequence[str] | None = None,
        round_to: int = 8,
        least: float = 0.125,
        mirror: bool = False,
        ridge: float = 0.01,
        powers: Sequence[float] = (0.5, 1.0),
        seed: int = 0,
        progress: Callable[[Iterable[Any], str], Iterable[Any]] = _all,
    ) -> None:
        self.seconds: dict[str, float] = {}
        self._clock = time.perf_counter()
        self.module, self.seed, self.ridge, self.powers = module, seed, ridge, tuple(powers)
        self.mirror = mirror
        self._progress = progress
        self.pictures = CalibrationSet.of(module, batches)
        self._fitted = list(self.pictures.fitted)
        if mirror:  # what pictures there are enough of needs no doubles
            missing = _ENOUGH - self.pictures.images
            for batch in self.pictures.fitted:
                if missing > 0:
                    self._fitted.append(mirrored(batch))
                    missing -= batch_length(batch)
        self.images = sum(map(batch_length, self._fitted))
        example = first_of(self._fitted[0])
        with untouched(module):
            module.eval()
            self.groups: ChannelGroups = build_groups(module, example)
        self.macs = MacModel.of(module, self.groups, example, call)
        self._allowed = self._widths(layers, round_to, least)
        self._took("groups")
        self._maps = self._saliency()
        self.dense_outputs = outputs_of(module, self.pictures.held_back)
        self._took("dense outputs")
        self.losses: dict[str, Elimination] = repaired_losses(
            module,
            self.groups,
            self._allowed,
            self._fitted,
            call,
            places=self._places(),
            ridge=ridge,
            progress=lambda names: progress(names, "Measuring losses"),
        )
        self._took("losses")

    def _widths(
        self, layers: Sequence[str] | None, round_to: int, least: float
    ) -> dict[str, tuple[int, ...]]:
        found = {}
        try:
            selected = self.groups.select(None if layers is None else list(layers))
        except KeyError as error:
            raise ValueError(f"layers: {error.args[0]}") from error
        for name in selected:
            group = self.groups[name]
            fewest = least_width(group.channels, least)
            widths = narrower_widths(group.channels, fewest, group.round_to(round_to))
            if len(widths) > 1:
                found[name] = widths
        if not found:
            raise ValueError(
                f"no channel can go: {len(self.groups)} groups, none with more than one multiple "
                f"of round_to={round_to} channels and least={least}"
            )
        return found

    def _saliency(self) -> list[Tensor | None]:
        own = getattr(self.module, "saliency", None)
        if not callable(own):
            return []
        # One by one: the outputs of all would be far larger than what is kept of them.
        return [own(*outputs_of(self.module, [batch])) for batch in self._fitted]

    def _places(self, batches: int | None = None, images: int | None = None) -> Places:
        maps = self._maps if batches is None else self._maps[:batches]
        return places_for(images or self.images, self.seed, maps)

    def _took(self, part: str) -> None:
        now = time.perf_counter()
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self._clock
        self._clock = now

    # --- widths -----------------------------------------------------------------------------

    @property
    def least_macs(self) -> float:
        """Fraction of the MACs that the narrowest widths leave."""
        narrowest = {name: own[-1] for name, own in self._allowed.items()}
        return self.macs.remaining(narrowest) / self.macs.total

    def plan(self, mac_target: float, power: float) -> PruningPlan:
        """Return the plan that leaves a fraction of the MACs at the least loss.

        Raises:
            ValueError: the narrowest widths cost more.
        """
        if not 0 < mac_target < 1:
            raise ValueError(f"mac_target={mac_target}: pass the fraction that remains, in (0, 1)")
        if self.least_macs > mac_target:
            raise ValueError(
                f"mac_target={mac_target} (fraction of the dense MACs that remains) cannot be "
                f"reached: the narrowest widths leave {self.least_macs:.3f}; raise it, or lower "
                "`least` or `round_to`"
            )
        names = list(self.losses)
        widths = least_loss_widths(
            [self.losses[name].widths for name in names],
            [self.losses[name].losses for name in names],
            self.macs.cost_of(names),
            mac_target * self.macs.total,
            power,
        )
        keep = {n: self.losses[n].keep(width) for n, width in zip(names, widths, strict=True)}
        return PruningPlan(keep, {name: self.groups[name].channels for name in names})

    def search(self, mac_target: float) -> tuple[float, PruningPlan]:
        """Return the exponent, and the plan, whose repaired network agrees best with the dense one.

        Tried on a quarter of the batches; agreement is that on what was held back, or on them
        where nothing was.
        """
        plans: list[tuple[float, PruningPlan]] = []
        for power in self.powers:
            plan = self.plan(mac_target, power)
            if not any(_same(plan, other) for _, other in plans):
                plans.append((power, plan))
        if len(plans) == 1:
            return plans[0]
        some = self._some()
        judged = self.pictures.held_back or some
        wanted = self.dense_outputs or outputs_of(self.module, some)
        best: tuple[float, float, PruningPlan] | None = None
        for power, plan in self._progress(plans, "Trying widths"):
            trial = copy_module(self.module)
            self._repair(trial, self.module, plan, some)
            found = agreement(trial, judged, wanted)
            if best is None or found > best[0]:
                best = found, power, plan
        assert best is not None
        self._took("widths")
        return best[1], best[2]

    def smallest(self, least: float) -> float:
        """Return the smallest fraction of the MACs at which agreement is no less than that.

        By halving the range six times, with networks that are repaired on a part of the pictures,
        so that the network which is then made agrees rather more.

        Args:
            least: Agreement, in (0, 1).

        Raises:
            ValueError: nothing was held back, or no size agrees so far.
        """
        if not self.pictures.held_back:
            raise ValueError("agreement needs pictures that are held back: pass at least 5")
        some = self._some()
        low, high = self.least_macs, 1.0
        found: float | None = None
        for _ in self._progress(range(_HALVINGS), "Trying sizes"):
            middle = (low + high) / 2
            trial = copy_module(self.module)
            self._repair(trial, self.module, self.plan(middle, self.powers[0]), some)
            if agreement(trial, self.pictures.held_back, self.dense_outputs) >= least:
                found = high = middle
            else:
                low = middle
        if found is None:
            raise ValueError(f"agreement {least}: no network that is smaller agrees so far")
        return found

    def _some(self) -> Sequence[Any]:
        """Return the first batches, about a quarter of all."""
        wanted = max(_FEW, int(_SEARCHED * self.images))
        length = max(1, self.images // len(self._fitted))
        count = min(len(self._fitted), max(1, round(wanted / length)))
        return self._fitted[:count]

    def _repair(
        self,
        module: nn.Module,
        dense: nn.Module,
        plan: PruningPlan,
        batches: Sequence[Any],
        bar: bool = False,
    ) -> WalkedRefit:
        images = sum(map(batch_length, batches))
        places = self._places(len(batches), images)
        layers = [name for name, layer in module.named_modules() if is_matrix(layer)]
        shown = iter(self._progress(layers, "Refitting layers") if bar else layers)
        found = masked_refit(
            module, dense, self.groups, plan, batches, call, places=places, ridge=self.ridge,
            progress=lambda _: next(shown, None),
        )  # fmt: skip
        for _ in shown:  # those that no batch came to
            pass
        return found

    # --- the cut ----------------------------------------------------------------------------

    def cut(
        self, mac_target: float, *, steps: int = 0, module: nn.Module | None = None
    ) -> Compressed:
        """Mask, repair and cut, then make label-free steps.

        Args:
            mac_target: Fraction of the dense MACs that remains, in (0, 1).
            steps: Label-free steps, at least 0.
            module: What is cut; None: the module itself, which ends what this object can do. A
                copy leaves it for further targets.

        Raises:
            ValueError: the target is out of range or out of reach.
            RuntimeError: the cut network differs from the masked one; the module is as it was.
        """
        self._clock = time.perf_counter()
        power, plan = self.search(mac_target)
        values = max((sum(pair) for pair in self.macs.values.values()), default=0)
        batches = within_memory(self._fitted, values)
        target = self.module if module is None else module
        dense = copy_module(self.module)
        try:
            found = self._repair(target, dense, plan, batches, bar=True)
            self._took("repair")
            # On a copy first: a cut cannot be taken back where the comparison refuses it.
            verified_cut(copy_module(target), self.groups, plan, first_of(self._fitted[0]))
        except BaseException:
            restore(target, dense)
            raise
        features = kept_features(target, self.groups, plan)
        cut_channels(target, self.groups, plan)
        held_back = self.pictures.held_back

        def score() -> float:
            return agreement(target, held_back, self.dense_outputs)

        before = score() if held_back else None
        self._took("cut")
        if held_back:
            taken = label_free_steps(
                target, dense, self.pictures.fitted, score, features=features, mirror=self.mirror,
                steps=steps, seed=self.seed,
                progress=lambda all_steps: self._progress(all_steps, "Label-free steps"),
            )  # fmt: skip
        else:
            taken = StepsTaken(0, 0, 0.0, 0.0)
        self._took("steps")
        macs = self.macs.remaining({name: len(keep) for name, keep in plan.keep.items()})
        return Compressed(
            target,
            plan,
            self.macs.total,
            macs,
            (taken.after if taken.steps else before) if held_back else None,
            before,
            taken,
            power,
            self.images,
            found.errors,
            {**self.groups.refused, **found.left},
            dict(self.seconds),
        )


def _same(plan: PruningPlan, other: PruningPlan) -> bool:
    return all(torch.equal(keep, other.keep[name]) for name, keep in plan.keep.items())
