"""Settings of the parts of the neural-response network; the defaults are the v2 configuration."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

from lightning_prune.annotations import Above, AtLeast, Between, Such
from lightning_prune.arguments import Count
from lightning_prune.neural.network.activation import ActivationName
from lightning_prune.validation import read, validated

Convolution = Literal["depthwise", "standard"]
Norm = Literal["rms", "batch", "none"]
Candidate = Literal["fixed", "standard", "missing"]
RecurrentInit = Literal["orthogonal", "default"]
ConvolutionInit = Literal["leaky_relu", "relu"]
FrontendInit = Literal["gaussian_derivatives", "default"]
OddKernel = Annotated[
    int, Such(lambda size: size > 0 and size % 2 == 1, "an odd integer of at least 1")
]


class FromDict:
    """Lets options be read from a mapping, such as a section of a YAML file."""

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], where: str | None = None) -> Self:
        """Build the options from a mapping; absent keys have their defaults.

        Args:
            content: Values by name.
            where: Name of the place, for messages; the name of the class by default.

        Raises:
            ValueError: an unknown key, or a value of the wrong type or out of range.
        """
        return read(cls, content, where or cls.__name__)


@validated
@dataclass(frozen=True)
class FrontendOptions(FromDict):
    """The learnable convolution over time.

    Attributes:
        kernel_size: Taps over time, in frames.
        num_channels: Filters.
        init: Start as the derivatives of a Gaussian, or at random as torch does by default.
    """

    kernel_size: Count = 16
    num_channels: Count = 4
    init: FrontendInit = "gaussian_derivatives"


@validated
@dataclass(frozen=True)
class PoolOptions(FromDict):
    """The anti-aliased pooling at the end of a block.

    Attributes:
        stride: Side of the windows in pixels, and their distance.
        reduction: Channels per hidden unit of the gates.
        use_soft: Soft pooling; otherwise the mean of each window.
    """

    stride: Count = 2
    reduction: Count = 4
    use_soft: bool = True


@validated
@dataclass(frozen=True)
class BlockOptions(FromDict):
    """One residual block.

    Attributes:
        kernel_size: Taps over time, rows and columns; one number for all three, or three.
        stride: Step over time, rows and columns; likewise.
        dilation: Distance of the taps; likewise.
        padding: Pixels that the frame's border is repeated outwards by, over rows and columns;
            None: as many as keep the size at stride 1. Over time the first frame is repeated, so
            that a result never depends on later frames.
        dropout: Probability, 0 to below 1.
        pool: Pooling at the end of the block, or None.
    """

    kernel_size: Annotated[int | tuple[int, int, int], AtLeast(1)] = 3
    stride: Annotated[int | tuple[int, int, int], AtLeast(1)] = 1
    dilation: Annotated[int | tuple[int, int, int], AtLeast(1)] = 1
    padding: Annotated[int | tuple[int, int] | None, AtLeast(0)] = None
    dropout: Annotated[float, Between(0, 1, "a probability", "[)")] = 0.0
    pool: PoolOptions | None = None

    def __post_init__(self) -> None:
        for name, length in (("kernel_size", 3), ("stride", 3), ("dilation", 3), ("padding", 2)):
            value = getattr(self, name)
            if isinstance(value, int):
                object.__setattr__(self, name, (value,) * length)

    @property
    def kernel(self) -> tuple[int, int, int]:
        """Return the taps over time, rows and columns."""
        return self.kernel_size  # type: ignore[return-value]

    @property
    def steps(self) -> tuple[int, int, int]:
        """Return the strides of the convolution over time, rows and columns."""
        return self.stride  # type: ignore[return-value]

    @property
    def distances(self) -> tuple[int, int, int]:
        """Return the dilations over time, rows and columns."""
        return self.dilation  # type: ignore[return-value]

    @property
    def borders(self) -> tuple[int, int]:
        """Return the pixels that rows and columns are padded by on either side."""
        if self.padding is not None:
            return self.padding  # type: ignore[return-value]
        rows, columns = (
            d * (k - 1) // 2 for d, k in zip(self.distances[1:], self.kernel[1:], strict=True)
        )
        return rows, columns


def v2_blocks() -> tuple[BlockOptions, ...]:
    """Return the three blocks of the v2 configuration."""
    return (
        BlockOptions(kernel_size=(3, 5, 5), stride=2, padding=3),
        BlockOptions(kernel_size=(3, 5, 5), padding=3, dropout=0.1, pool=PoolOptions()),
        BlockOptions(kernel_size=3, dilation=2, padding=2, dropout=0.2, pool=PoolOptions()),
    )


@validated
@dataclass(frozen=True)
class ConvNetOptions(FromDict):
    """The 3-D ResNet.

    Attributes:
        channels: Channels of each block.
        blocks: The blocks, as many as ``channels``.
        conv_type: ``depthwise`` (separable) or ``standard`` convolutions.
        use_weight_norm: Learn the length of each filter apart; standard convolutions only.
        norm_type: ``rms``, ``batch`` or ``none``.
        norm_affine: The norms have a learnable scale and shift.
        norm_eps: Epsilon of the norms.
        activation: After each norm.
        sum_activation: After each sum of a block and its shortcut; the published model has none.
        init: Nonlinearity that the Kaiming initialisation reckons with; ``leaky_relu`` (slope
            0.01) stands for SiLU.
        zero_init_residual: Start the last norm of each block at scale zero, so that the block
            starts as its shortcut.
    """

    channels: Annotated[
        tuple[int, ...], AtLeast(1), Such(len, "a list of integers of at least 1, not an empty one")
    ] = (64, 128, 256)
    blocks: tuple[BlockOptions, ...] = field(default_factory=v2_blocks)
    conv_type: Convolution = "depthwise"
    use_weight_norm: bool = False
    norm_type: Norm = "rms"
    norm_affine: bool = True
    norm_eps: Annotated[float, Above(0)] = 1e-5
    activation: ActivationName = "silu"
    sum_activation: ActivationName = "none"
    init: ConvolutionInit = "leaky_relu"
    zero_init_residual: bool = True

    def __post_init__(self) -> None:
        if len(self.blocks) != len(self.channels):
            raise ValueError(
                f"blocks has {len(self.blocks)} entries and channels {len(self.channels)}: "
                "pass one block for each number of channels"
            )
        if self.use_weight_norm and self.conv_type == "depthwise":
            raise ValueError(
                "use_weight_norm=True with conv_type='depthwise': weight norm is for standard "
                "convolutions; set conv_type to standard or use_weight_norm to false"
            )


@validated
@dataclass(frozen=True)
class ModulatorOptions(FromDict):
    """The ConvGRU that joins the features with the behaviour.

    Attributes:
        behavior_dim: Numbers that describe the behaviour at an instant.
        feature_dim: Channels of the features, those of the ResNet's last block.
        hidden_dim: Channels of the hidden state and of the result.
        beh_emb_dim: Numbers that the behaviour is mapped to before it joins the features.
        kernel_size: Side of the recurrent network's kernels in pixels, odd.
        use_layer_norm: Normalise what the hidden state contributes to the gates.
        learnable_h0: Learn the first hidden state; otherwise it is zero.
        use_depthwise: Depthwise-separable convolutions.
        use_grouped: Convolutions in ``num_groups`` groups.
        num_groups: Groups; divides the channels read and the hidden ones.
        use_residual: Add the last input to the last state; ``feature_dim + beh_emb_dim`` must be
            ``hidden_dim``.
        grad_clip_val: Clamp the hidden state to +- this value in training, after each step; it
            clips no gradient (that is the Trainer's ``gradient_clip_val``). None: never.
        candidate: How the reset gate r acts on the candidate n: ``fixed`` tanh(n + W h + r h),
            ``standard`` tanh(n + r W h), ``missing`` tanh(n + W h), the published mistake.
        init: Recurrent weights ``orthogonal``, or torch's ``default``.
    """

    behavior_dim: Count = 42
    feature_dim: Count = 256
    hidden_dim: Count = 256
    beh_emb_dim: Count = 32
    kernel_size: OddKernel = 3
    use_layer_norm: bool = True
    learnable_h0: bool = True
    use_depthwise: bool = False
    use_grouped: bool = False
    num_groups: Count = 1
    use_residual: bool = False
    grad_clip_val: Annotated[float | None, Above(0)] = None
    candidate: Candidate = "fixed"
    init: RecurrentInit = "orthogonal"


@validated
@dataclass(frozen=True)
class ReadoutOptions(FromDict):
    """The readout of a session's cells.

    Attributes:
        bias: Learn a constant for each cell.
        initial_std: Standard deviation of each cell's Gaussian at the start, in feature pixels.
        initial_mean_scale: Standard deviation of the Gaussians' centres at the start, in feature
            pixels from the middle of the frame.
    """

    bias: bool = True
    initial_std: Annotated[float, Above(0)] = 5.0
    initial_mean_scale: Annotated[float, AtLeast(0)] = 0.1
