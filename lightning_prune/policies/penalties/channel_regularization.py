"""A channel penalty at work on a live model; for Lightning and plain loops alike."""

import warnings
from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from lightning_prune.arguments import Strength
from lightning_prune.functional.low_channels import low_channels
from lightning_prune.graph.group import ChannelGroups
from lightning_prune.graph.macs import MacModel
from lightning_prune.plan import PruningPlan
from lightning_prune.policies.penalties.channel_penalty import ChannelPenalty
from lightning_prune.policies.penalties.group_norm_penalty import GroupNormPenalty
from lightning_prune.surgery.channel_weights import ChannelWeights
from lightning_prune.validation import validated


class ChannelRegularization:
    r"""Adds the gradient of a channel penalty, once per optimizer step.

    .. math:: \lambda_g = \gamma (\text{reg} + \text{mac\_reg} \, m_g)

    is the strength of group g, with :math:`m_g` in [0, 1] from ``MacModel.relative_costs``.

    Args:
        model: The live model.
        groups: Its channel groups.
        names: The groups that are regularized; None: all.
        penalty: What is penalised; None: ``GroupNormPenalty()``.
        reg: Strength for every group.
        mac_reg: Additional strength of the group whose channels cost the most MACs.
        gamma: Scale of the whole.
        macs: The MACs of the dense network; needed for ``mac_reg``.

    Raises:
        ValueError: a strength is negative, or ``mac_reg`` comes without ``macs``; the penalty acts
            on none of the groups.

    Warns:
        UserWarning: the penalty does nothing to some of the groups.
    """

    @validated
    def __init__(
        self,
        model: nn.Module,
        groups: ChannelGroups,
        names: Sequence[str] | None = None,
        penalty: ChannelPenalty | None = None,
        reg: Strength = 5e-3,
        mac_reg: Strength = 0.0,
        gamma: Strength = 1.0,
        macs: MacModel | None = None,
    ) -> None:
        names = tuple(groups if names is None else names)
        self.penalty = penalty or GroupNormPenalty()
        self._check_effect(model, groups, names)
        self.weights = ChannelWeights(model, groups, names)
        self._penalised = self.weights
        if self.penalty.batch_norms_only:
            self._penalised = ChannelWeights(model, groups, names, batch_norms_only=True)
        strength = torch.full((len(names),), gamma * reg, dtype=torch.float64)
        if mac_reg:
            if macs is None:
                raise ValueError(f"mac_reg={mac_reg} needs the MACs of the network: pass `macs`")
            costs = macs.relative_costs(names)
            strength += gamma * mac_reg * torch.tensor([costs[n] for n in names]).double()
        self._base = strength[self.weights.group.cpu()].float()
        self._active: Tensor | None = None

    def _check_effect(self, model: nn.Module, groups: ChannelGroups, names: Sequence[str]) -> None:
        reasons = {name: self.penalty.why_ineffective(model, groups[name]) for name in names}
        idle = [f"{name!r} ({why})" for name, why in reasons.items() if why is not None]
        kind = type(self.penalty).__name__
        if idle and len(idle) == len(names):
            raise ValueError(
                f"{kind} has no effect on any of the {len(names)} groups, such as {idle[0]}: "
                "choose other layers or GroupNormPenalty"
            )
        if idle:
            some = ", ".join(idle[:3])
            warnings.warn(f"{kind} has no effect on {len(idle)} groups: {some}", stacklevel=4)

    def set_masked(self, plan: PruningPlan) -> None:
        """Leave the channels out that a plan removes: no penalty, and no part in the extremes."""
        self._active = self.weights.keeps(plan) if plan else None

    @torch.no_grad()
    def apply(
        self, parameters: Collection[int] | None = None, scale: Tensor | float | None = None
    ) -> None:
        """Add the penalty's gradient to the gradients that are there.

        Args:
            parameters: ``id`` of the parameters that may be touched; None: all.
            scale: Factor that the gradients carry at the moment (a loss scale); None: 1.

        Raises:
            RuntimeError: the model was cut since.
        """
        device = self.weights.device
        if self._base.device != device:
            self._base = self._base.to(device)
        if self._active is not None and self._active.device != device:
            self._active = self._active.to(device)
        base = self._base if scale is None else self._base * scale
        self.penalty.add_to_gradients(self._penalised, base, self._active, parameters)

    def norms(self) -> dict[str, Tensor]:
        """Return the norms of every group's channels that are not masked, on the CPU."""
        norms = self.weights.split(self.weights.norms().cpu())
        if self._active is None:
            return norms
        active = self.weights.split(self._active.cpu())
        return {name: norms[name][active[name]] for name in norms}

    def summary(self, threshold: float) -> tuple[float, float]:
        """Return the mean norm of the channels that are not masked, and the fraction of low ones.

        Args:
            threshold: A channel is low below this fraction of its group's largest norm.
        """
        norms = [values for values in self.norms().values() if len(values)]
        if not norms:
            return 0.0, 0.0
        low = torch.cat([low_channels(values, threshold) for values in norms])
        return float(torch.cat(norms).mean()), float(low.double().mean())
