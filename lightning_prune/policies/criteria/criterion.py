"""What a criterion is: given a width, it says which channels of a group stay."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from lightning_prune.functional.reconstruction.elimination import Elimination
from lightning_prune.functional.selection.clustering import ChannelClustering
from lightning_prune.functional.selection.moments import ClassMoments
from lightning_prune.graph.group import ChannelGroups, Group, Member
from lightning_prune.graph.macs import MacModel
from lightning_prune.graph.names import modules_by_name
from lightning_prune.plan import PruningPlan
from lightning_prune.policies.criteria.non_finite_importance import check_finite

Need = Literal["gradients", "batch_gradients", "activations", "clusters", "losses"]
"""What must be collected from training data before a criterion can judge; see ``Criterion``."""

_COLLECTED: dict[Need, str] = {
    "gradients": "gradients of the loss",
    "batch_gradients": "gradients of the loss of single batches",
    "activations": "activations of layers at training images",
    "clusters": "clusters of channels by the classes that they separate",
    "losses": "what consumers lose without channels, the others refitted",
}


@dataclass(frozen=True)
class Evidence:
    """All that is known of a group when its channels are chosen.

    Gradients, of a criterion that needs them, are in the parameters' ``.grad``.

    Attributes:
        model: The live model, earlier groups already masked.
        group: The group.
        moments: Producer's name -> class statistics of its output; empty where no object matched.
        clustering: Clusters of the channels for every k; None where no object matched.
        outputs: Source's name -> mean over images of what the criterion's ``output_values`` gives.
        elimination: The order in which channels go at the least loss that their consumers cannot
            repair; None: not measured.
    """

    model: nn.Module
    group: Group
    moments: Mapping[str, ClassMoments] = field(default_factory=dict)
    clustering: ChannelClustering | None = None
    outputs: Mapping[str, Tensor] = field(default_factory=dict)
    elimination: Elimination | None = None


class Criterion(ABC):
    """A rule that ranks or picks the channels of a group.

    Attributes:
        needs: What is collected before it is asked; a front end that cannot collect it refuses.
            ``gradients``: of the loss, in the parameters' ``.grad``. ``batch_gradients``:
            ``add_batch`` is called while ``.grad`` holds those of a batch's loss alone.
            ``activations``: ``output_values`` of layer outputs, averaged over images, in
            ``Evidence.outputs``. ``clusters``: ``Evidence.clustering`` and ``moments``.
            ``losses``: ``Evidence.elimination``.
    """

    needs: frozenset[Need] = frozenset()

    @abstractmethod
    def importance(self, evidence: Evidence) -> Tensor:
        """Return one importance per channel of the group, (C,), larger = keep."""

    def choose(self, evidence: Evidence, width: int) -> Tensor:
        """Return the ``width`` channels that stay, sorted; the most important, first on ties.

        Raises:
            NonFiniteImportanceError: an importance is NaN or infinite.
        """
        values = self.importance(evidence).double()
        check_finite(values, f"the importance by {type(self).__name__}", evidence.group.name)
        order = torch.argsort(values, descending=True, stable=True)
        return order[:width].sort()[0].cpu()

    def comparable(
        self,
        model: nn.Module,
        groups: ChannelGroups,
        names: Sequence[str],
        macs: MacModel,
        held: PruningPlan,
        evidence: Mapping[str, Evidence] | None = None,
    ) -> dict[str, Tensor]:
        """Return importances that can be compared between groups.

        Here the importance divided by its mean over the channels that are not yet masked.

        Args:
            model: The live model.
            groups: Its channel groups.
            names: The groups that are ranked together.
            macs: MACs as a function of widths.
            held: What is masked already.
            evidence: Group name -> what was collected; None: nothing, the weights decide.

        Returns:
            Group name -> (C,) float64, larger = keep; what a masked channel gets has no meaning.

        Raises:
            NonFiniteImportanceError: an importance is NaN or infinite.
            ValueError: there is not one importance for each channel.
        """
        found = {}
        for name, values in self._finite(model, groups, names, held, evidence).items():
            alive = held.mask(name) if name in held.keep else torch.ones(len(values)).bool()
            mean = values[alive].mean()
            found[name] = values / mean if mean > 0 else values
        return found

    def _finite(
        self,
        model: nn.Module,
        groups: ChannelGroups,
        names: Sequence[str],
        held: PruningPlan,
        evidence: Mapping[str, Evidence] | None,
    ) -> dict[str, Tensor]:
        """Return the importance of every group's channels, checked, (C,) float64."""
        found = {}
        for name in names:
            group = groups[name]
            known = Evidence(model, group) if evidence is None else evidence[name]
            values = self.importance(known).detach().double().cpu()
            if values.shape != (group.channels,):
                raise ValueError(
                    f"{type(self).__name__} gave group {name!r} importances of shape "
                    f"{tuple(values.shape)}: return one for each of its {group.channels} channels"
                )
            alive = held.keep.get(name, torch.arange(group.channels))
            check_finite(values[alive], f"the importance by {type(self).__name__}", name)
            found[name] = values
        return found

    def output_values(self, output: Tensor) -> Tensor:
        """Return what is averaged over images of a source's output, for ``activations``.

        Args:
            output: (B, C, ...) output after the norm and the activation that directly follow.

        Returns:
            (B, C) or (B, C, ...): ``Evidence.outputs`` holds its mean over all images.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no output_values")

    def start(self) -> None:  # noqa: B027 - a hook, not abstract
        """Clear the batches of an earlier decision."""

    def add_batch(  # noqa: B027 - a hook, not abstract
        self, model: nn.Module, groups: ChannelGroups, names: Sequence[str]
    ) -> None:
        """Record a batch, whose gradients are in the parameters' ``.grad``."""

    @property
    def sums(self) -> dict[str, Tensor]:
        """What ``add_batch`` summed up, to be summed over processes in place."""
        return {}

    def check(self, model: nn.Module, group: Group) -> None:  # noqa: B027 - a hook, not abstract
        """Raise ValueError, before training, where the criterion cannot judge a group."""


def check_observable(model: nn.Module, group: Group) -> None:
    """Check that the activations of a group's channels can be read at outputs of layers.

    Raises:
        ValueError: none shows them (the channels of parameters that no convolution, linear layer
            or embedding holds).
    """
    hidden = why_hidden(model, group)
    if hidden is not None:
        raise ValueError(
            f"the activations of group {group.name!r} cannot be read: {hidden}; leave the group "
            "out, or choose by weights, with a criterion such as GroupNorm"
        )


def why_hidden(model: nn.Module, group: Group) -> str | None:
    """Return why no layer's output shows the channels of a group, or None where one does."""
    modules = modules_by_name(model)
    hidden = [m.layer for m in group.sources if not _shows_channels(modules[m.layer], m)]
    if group.sources and not hidden:
        return None
    if not hidden:
        return "no layer gives its channels as output"
    kind = type(modules[hidden[0]]).__name__
    return f"layer {hidden[0]!r}, a {kind}, does not give its channels in a known place"


def _shows_channels(layer: nn.Module, member: Member) -> bool:
    known = isinstance(layer, _ConvNd | nn.Linear | nn.Embedding)
    return known or member.shows is True


def why_unmet(criterion: Criterion, offered: Set[Need], where: str) -> str | None:
    """Return why a criterion cannot be used where only some of its needs are met, or None.

    Args:
        criterion: The criterion.
        offered: What is collected.
        where: End of the sentence "..., which": who does not collect the rest.

    >>> from lightning_prune.policies.criteria.taylor import Taylor
    >>> why_unmet(Taylor(), {"clusters"}, "SomeMasker does not collect")
    'Taylor needs gradients of the loss, which SomeMasker does not collect: use another \
criterion, such as GroupNorm'
    """
    unmet = [what for need, what in _COLLECTED.items() if need in criterion.needs - offered]
    if not unmet:
        return None
    return (
        f"{type(criterion).__name__} needs {' and '.join(unmet)}, which {where}: use another "
        "criterion, such as GroupNorm"
    )
