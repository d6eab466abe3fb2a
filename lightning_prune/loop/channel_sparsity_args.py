"""The section ``channel_sparsity_args`` of a pruning configuration."""

from dataclasses import dataclass
from typing import Annotated, Literal

from lightning_prune.annotations import Above, AtLeast, Between, Such, one_of
from lightning_prune.arguments import MacTarget
from lightning_prune.functional.ratio import RatioSchedule
from lightning_prune.graph.group import Attention, Norms
from lightning_prune.loop.pruning_methods import PRUNING_METHODS
from lightning_prune.policies.selection.fast_widths import FastWidths

Shape = list[Annotated[int, AtLeast(1)]]


@dataclass(frozen=True)
class Regularize:
    """The object ``regularize``: strengths of the penalty on channels; 0: none.

    Attributes:
        reg: Base strength, such as 5e-2, 5e-3 or 5e-4.
        mac_reg: Extra strength of the groups that cost the most MACs.
        gamma: Scale of both.
    """

    reg: Annotated[float, AtLeast(0)] = 0.0
    mac_reg: Annotated[float, AtLeast(0)] = 0.0
    gamma: Annotated[float, AtLeast(0)] = 1.0


@dataclass(frozen=True)
class MacParams:
    """The object ``MAC_params``: how the importance of a channel is weighed with its MACs.

    Attributes:
        use_macs: Whether it is; absent: with the method MACAwareImportance.
        type: ``Sum`` or ``Mul``.
        alpha: Weight of the importance in the sum, in [0, 1].
        beta: The product's root.
    """

    use_macs: bool | None = None
    type: Literal["Sum", "Mul"] = "Sum"
    alpha: Annotated[float, Between(0, 1)] = 0.9
    beta: Annotated[float, Above(0)] = 2.0


@dataclass(frozen=True)
class ChannelSparsityArgs:
    """What the file says of channel pruning; the fields are its keys.

    Attributes:
        is_prune: False: no channel is regularized, masked or cut.
        start_epoch: First epoch (0-based) at which channels are masked.
        end_epoch: Epoch before which the schedule ends.
        input_shape: One shape of the model's input, or a list of shapes.
        epoch_rate: Epochs from one step to the next.
        global_pruning: One ranking over all groups; False: the same ratio in every group.
        isomorphic: One ranking per set of groups of equal structure, whatever global_pruning says.
        measured: Widths of the least loss once consumers are refitted, whatever these two say.
        block_size: Channels that remain in a layer are a multiple of it.
        global_prune_rate: Fraction of the channels that goes by the end; absent: 1, with a target.
        max_pruning_rate: Largest fraction of a layer's channels that goes.
        mac_target: Fraction of the dense MACs that remains; null: the schedule runs to its end.
        reach_mac_target: State: whether the run that wrote the file has cut the model.
        log_str: State: what was cut.
        pruning_method: How channels are judged and penalised.
        prune_channels_at_init: Cut before the first epoch, in one step.
        infer: The same, for a model that is not trained any more.
        regularize: The penalty.
        MAC_params: Weighing with MACs.
        layers: Names or patterns of the layers to prune; empty: all.
        container: "tuple": several inputs are passed as a tuple instead of a list.
        fast_widths: How widths move to such as run fast; null: they are what the ranking gives.
        hold_epochs: Epochs of training with all masks before the cut.
        compensate_images: Training images from which, after each step, layers behind a mask are
            fitted to what the model gave before it, norms included; 0: never.
        recalibrate_images: Training images from which norm statistics are estimated again at
            each step: after it, or before layers are refitted; 0: never.
        gradient_images: Training images whose loss is differentiated, or whose activations are
            averaged, for the methods that need it.
        norms: "exact": layer, group and RMS norms count channels that are cut as zeros, so that the
            cut changes no output; "plain": they take statistics of the channels left.
        attention: What of attention goes: whole "heads", the same channels of the "width" of every
            head, or "both".
    """

    is_prune: bool
    start_epoch: Annotated[int, AtLeast(0)]
    end_epoch: Annotated[int, AtLeast(1)]
    input_shape: Annotated[
        Shape | list[Shape],
        Such(
            lambda given: given and given != [[]],
            "a shape such as [1, 3, 224, 224], or a list of shapes",
        ),
    ]
    epoch_rate: Annotated[int, AtLeast(1)] = 1
    global_pruning: bool = True
    isomorphic: bool = False
    measured: bool = False
    block_size: Annotated[int, AtLeast(1)] = 1
    global_prune_rate: Annotated[float | None, Between(0, 1, ends="(]")] = None
    max_pruning_rate: Annotated[float, Between(0, 1, ends="(]")] = 0.9
    mac_target: MacTarget = None
    reach_mac_target: bool = False
    log_str: str = ""
    pruning_method: Annotated[str, one_of(PRUNING_METHODS)] = "GroupNormPruner"
    prune_channels_at_init: bool = False
    infer: bool = False
    regularize: Regularize = Regularize()
    MAC_params: MacParams = MacParams()
    layers: list[str] | None = None
    container: Literal["list", "tuple"] | None = None
    fast_widths: FastWidths | None = None
    hold_epochs: Annotated[int, AtLeast(0)] = 1
    compensate_images: Annotated[int, AtLeast(0)] = 0
    recalibrate_images: Annotated[int, AtLeast(0)] = 0
    gradient_images: Annotated[int, AtLeast(1)] = 64
    norms: Norms = "exact"
    attention: Attention = "heads"

    def __post_init__(self) -> None:
        if self.global_prune_rate is None and self.mac_target is None:
            raise ValueError(
                "one of mac_target (fraction of the dense MACs that remains) and "
                "global_prune_rate (fraction of the channels that goes) is needed"
            )
        _ = self.schedule

    @property
    def input_shapes(self) -> list[list[int]]:
        """Return the shape of each input."""
        single = isinstance(self.input_shape[0], int)
        return [self.input_shape] if single else self.input_shape  # type: ignore[list-item, return-value]

    @property
    def schedule(self) -> RatioSchedule:
        """Return the ratio at every epoch."""
        rate = 1.0 if self.global_prune_rate is None else self.global_prune_rate
        return RatioSchedule(self.start_epoch, self.end_epoch, self.epoch_rate, rate)

    @property
    def at_init(self) -> bool:
        """Return whether the cut comes before the first epoch."""
        return self.prune_channels_at_init or self.infer


NO_CHANNELS = ChannelSparsityArgs(False, 0, 1, [1], global_prune_rate=1.0)
"""Where ``is_prune`` is false."""
