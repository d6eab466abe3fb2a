"""The section ``channel_sparsity_args`` of a pruning configuration."""

from dataclasses import dataclass
from typing import Annotated, Any

from lightning_prune.functional.ratio import RatioSchedule
from lightning_prune.loop.json_section import (
    boolean,
    number,
    one_of,
    optional,
    read_section,
    section,
    text,
    texts,
    whole,
)
from lightning_prune.loop.pruning_methods import PRUNING_METHODS
from lightning_prune.policies.selection.fast_widths import FastWidths


def _input_shapes(value: Any, where: str) -> list[list[int]]:
    shapes = value if isinstance(value, list) and value and isinstance(value[0], list) else [value]
    for shape in shapes:
        sizes = isinstance(shape, list) and all(
            isinstance(size, int) and not isinstance(size, bool) and size > 0 for size in shape
        )
        if not sizes or not shape:
            raise ValueError(
                f"{where} is {value!r}: pass a shape such as [1, 3, 224, 224], or a list of shapes"
            )
    return shapes


@dataclass(frozen=True)
class Regularize:
    """The object ``regularize``: strengths of the penalty on channels; 0: none.

    Attributes:
        reg: Base strength, such as 5e-2, 5e-3 or 5e-4.
        mac_reg: Extra strength of the groups that cost the most MACs.
        gamma: Scale of both.
    """

    reg: Annotated[float, number(0)] = 0.0
    mac_reg: Annotated[float, number(0)] = 0.0
    gamma: Annotated[float, number(0)] = 1.0


@dataclass(frozen=True)
class MacParams:
    """The object ``MAC_params``: how the importance of a channel is weighed with its MACs.

    Attributes:
        use_macs: Whether it is; absent: with the method MACAwareImportance.
        type: ``Sum`` or ``Mul``.
        alpha: Weight of the importance in the sum, in [0, 1].
        beta: The product's root.
    """

    use_macs: Annotated[bool | None, optional(boolean)] = None
    type: Annotated[str, one_of(("Sum", "Mul"))] = "Sum"
    alpha: Annotated[float, number(0, 1)] = 0.9
    beta: Annotated[float, number(0, open_ends="(")] = 2.0


@dataclass(frozen=True)
class FastWidthsArgs:
    """The object ``fast_widths``: see ``FastWidths``.

    Attributes:
        vector: Channels that the hardware computes at once.
        moved: Time in which a value is made or read, in MACs.
        reach: How far a width may go, as a fraction of the layer's channels.
    """

    vector: Annotated[int, whole(1)] = FastWidths.vector
    moved: Annotated[float, number(0)] = FastWidths.memory_cost
    reach: Annotated[float, number(0, 1, "(")] = FastWidths.max_shift


def _fast_widths(value: Any, where: str) -> FastWidths:
    args = read_section(FastWidthsArgs, value, where)
    return FastWidths(args.vector, args.moved, args.reach)


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
    """

    is_prune: Annotated[bool, boolean]
    start_epoch: Annotated[int, whole(0)]
    end_epoch: Annotated[int, whole(1)]
    input_shape: Annotated[list[list[int]], _input_shapes]
    epoch_rate: Annotated[int, whole(1)] = 1
    global_pruning: Annotated[bool, boolean] = True
    isomorphic: Annotated[bool, boolean] = False
    block_size: Annotated[int, whole(1)] = 1
    global_prune_rate: Annotated[float | None, optional(number(0, 1, "("))] = None
    max_pruning_rate: Annotated[float, number(0, 1, "(")] = 0.9
    mac_target: Annotated[float | None, optional(number(0, 1, "()"))] = None
    reach_mac_target: Annotated[bool, boolean] = False
    log_str: Annotated[str, text] = ""
    pruning_method: Annotated[str, one_of(tuple(PRUNING_METHODS))] = "GroupNormPruner"
    prune_channels_at_init: Annotated[bool, boolean] = False
    infer: Annotated[bool, boolean] = False
    regularize: Annotated[Regularize, section(Regularize)] = Regularize()
    MAC_params: Annotated[MacParams, section(MacParams)] = MacParams()
    layers: Annotated[list[str] | None, optional(texts)] = None
    container: Annotated[str | None, optional(one_of(("list", "tuple")))] = None
    fast_widths: Annotated[FastWidths | None, optional(_fast_widths)] = None

    def __post_init__(self) -> None:
        if self.global_prune_rate is None and self.mac_target is None:
            raise ValueError(
                "one of mac_target (fraction of the dense MACs that remains) and "
                "global_prune_rate (fraction of the channels that goes) is needed"
            )
        _ = self.schedule

    @property
    def schedule(self) -> RatioSchedule:
        """The ratio at every epoch."""
        rate = 1.0 if self.global_prune_rate is None else self.global_prune_rate
        return RatioSchedule(self.start_epoch, self.end_epoch, self.epoch_rate, rate)

    @property
    def at_init(self) -> bool:
        """Whether the cut comes before the first epoch."""
        return self.prune_channels_at_init or self.infer
