"""Operations that mix channels, or leave them alone: norms, reductions, pooling, pointwise."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from lightning_prune.graph.labels import Ids, pin_readers, set_weights, weights_of
from lightning_prune.graph.rules.operation import Operation, axis_of
from lightning_prune.graph.rules.reshaping import split

# Sums and lengths of channels that are zero are what they are without them; a trial shows whether
# they are zero at that place.
_ZEROS_ADD_NOTHING = {"sum", "nansum", "linalg_vector_norm", "norm", "count_nonzero", "any"}
_STATISTICS = {"mean", "var", "std", "var_mean", "std_mean"}


def pointwise(op: Operation) -> None:
    """Each value by itself, or values at the same place."""
    results = [out for out in tree_leaves(op.out) if isinstance(out, Tensor)]
    tensors = [t for t in tree_leaves(dict(op.args)) if isinstance(t, Tensor)]
    for out in results:
        given = [t for t in tensors if t.dim() <= out.dim()]
        op.give(out, op.align(given, out.shape), op.is_weight(*tensors))
        if op.name == "mul" and not op.is_weight(out):
            for weight in filter(op.is_weight, given):
                missing = out.dim() - weight.dim()
                set_weights(out, {dim + missing: own for dim, own in op.axes(weight).items()})


def copy_(op: Operation) -> None:
    """Put the source in the place of what was there."""
    target, source = op.args["self"], op.args["src"]
    axes = op.align([t for t in (target, source) if op.axes(t)], target.shape)
    op.give(op.out, axes, op.is_weight(source))


def _vectors(op: Operation, source: Tensor, dim: int) -> Ids | None:
    """Join the vectors of a norm with the axis that they scale."""
    axes = op.axes(source)
    own = axes.get(dim)
    for name in ("weight", "bias", "running_mean", "running_var"):
        vector = op.args.get(name)
        labels = op.axes(vector).get(0)
        if labels is None:
            continue
        if own is None:
            op.labels.pin(labels, "it reads values that no layer makes")
            own = labels
        else:
            op.labels.join(own, labels)
    return own


def batch_norm(op: Operation) -> None:
    """Every channel by itself; statistics over other labelled axes change with their width."""
    source = op.args["input"]
    axes = op.axes(source)
    if op.args.get("training", False):
        for dim, own in axes.items():
            if dim != 1:
                op.labels.pin(own, f"statistics run over its channels{op.where()}")
    scaled = _vectors(op, source, 1)
    if scaled is not None:
        axes[1] = scaled
    out = op.out[0] if isinstance(op.out, list | tuple) else op.out
    op.give(out, axes, op.is_weight(source))


def layer_norm(op: Operation) -> None:
    """Statistics over the last axes; scale and shift of each position."""
    source = op.args["input"]
    rank = len(op.args["normalized_shape"])
    vectors = [v for v in (op.args.get("weight"), op.args.get("bias")) if v is not None]
    axes = op.align([source, *vectors], source.shape)
    for dim, own in axes.items():
        if dim >= source.dim() - rank:
            op.number(own)
            if dim == source.dim() - 1 and rank == 1 and op.inside:
                op.labels.statistics.append((own, op.inside))
            else:
                op.labels.pin(own, f"statistics run over its channels and others{op.where()}")
    op.give(op.out[0] if isinstance(op.out, list | tuple) else op.out, axes)


def group_norm(op: Operation) -> None:
    """Statistics over the channels of each group."""
    source, groups = op.args["input"], op.args["group"]
    axes = op.axes(source)
    own = _vectors(op, source, 1)
    if own is not None:
        axes[1] = own
        if groups < len(own):
            split(op, own, [groups, len(own) // groups])
            op.labels.statistics.append((own, op.inside))
        op.number(own)
    op.give(op.out[0], axes)


def weight_norm(op: Operation) -> None:
    """V g / |v|: the lengths are those of the rows."""
    axes = op.align([op.args["v"], op.args["g"]], op.args["v"].shape)
    op.give(op.out[0], axes, True)


def reduction(op: Operation) -> None:
    """Sums, means, extremes, sorting and softmax over some axes."""
    source = op.args.get("self", op.args.get("input"))
    if not isinstance(source, Tensor):
        unknown(op)
        return
    axes, dims = op.axes(source), _dims(op, source)
    outs = op.out if isinstance(op.out, list | tuple) else [op.out]
    outs = [out for out in outs if isinstance(out, Tensor)]
    kept = any(out.dim() == source.dim() for out in outs)
    for dim in dims:
        own = axes.pop(dim, None)
        if op.name == "sum" and dim in (weights := weights_of(source)):
            op.labels.mark_read(weights[dim])  # a product and its sum are a matrix product
        if own is None or op.name in _ZEROS_ADD_NOTHING:
            continue
        if op.name in _STATISTICS and op.leaf:
            op.labels.statistics.append((own, op.inside))
        elif op.name == "mean":
            # Of the weights of attention, which few ask for.
            pin_readers(outs[0], own, f"mean runs over its channels{op.where()}")
        else:
            op.labels.pin(own, f"{op.name} runs over its channels{op.where()}")
    for out in outs:
        if kept:
            op.give(out, axes, op.is_weight(source))
        else:
            left = [dim for dim in range(source.dim()) if dim not in dims]
            moved = {n: axes[d] for n, d in enumerate(left) if d in axes}
            op.give(out, moved, op.is_weight(source))


def _dims(op: Operation, source: Tensor) -> list[int]:
    given = op.args.get("dim", op.args.get("dims"))
    if given is None or (isinstance(given, Sequence) and not given):
        return list(range(source.dim()))
    dims = given if isinstance(given, Sequence) else [given]
    return [axis_of(dim, source) for dim in dims]


def glu(op: Operation) -> None:
    """First half times the sigmoid of the second."""
    source = op.args["self"]
    axes, dim = op.axes(source), axis_of(op.args["dim"], source)
    if dim in axes:
        half = len(axes[dim]) // 2
        op.labels.join(axes[dim][:half], axes[dim][half:])
        axes[dim] = axes[dim][:half]
    op.give(op.out, axes)


def spatial(op: Operation, trailing: int) -> None:
    """Work on the last axes, each channel by itself."""
    source = op.args.get("self", op.args.get("input"))
    if not isinstance(source, Tensor):
        unknown(op)
        return
    axes = op.axes(source)
    for dim in list(axes):
        if dim >= source.dim() - trailing:
            op.labels.pin(axes.pop(dim), f"{op.name} runs over its channels{op.where()}")
    for other in tree_leaves(dict(op.args)):
        if isinstance(other, Tensor) and other is not source:
            op.pin(op.axes(other), f"{op.name} takes it for places{op.where()}")
    for out in tree_leaves(op.out):
        if isinstance(out, Tensor) and out.dim() == source.dim():
            op.give(out, axes, op.is_weight(source))


def regions(op: Operation) -> None:
    """roi_align and roi_pool: (B, C, H, W) and boxes give (K, C, h, w)."""
    source = op.args["input"]
    axes = op.axes(source)
    for out in tree_leaves(op.out):
        if isinstance(out, Tensor) and out.dim() == 4:
            op.give(out, {1: axes[1]} if 1 in axes else {})


def nothing(op: Operation) -> None:
    """What is read has no channels: sizes, comparisons, fresh tensors."""


def index_put(op: Operation) -> None:
    """Values written at places."""
    for tensor in tree_leaves(dict(op.args)):
        if isinstance(tensor, Tensor):
            op.pin(op.axes(tensor), f"its channels are written one by one{op.where()}")


def scatter(op: Operation) -> None:
    """Write values at places along one axis; every position of the others by itself."""
    target, dim = op.args["self"], axis_of(op.args["dim"], op.args["self"])
    parts = [t for t in (target, op.args["index"], op.args.get("src")) if isinstance(t, Tensor)]
    found: dict[int, Ids] = {}
    for part in parts:
        for place, own in op.axes(part).items():
            if place == dim or part.shape[place] != target.shape[place]:
                op.labels.pin(own, f"its channels are written one by one{op.where()}")
            elif place in found:
                op.labels.join(found[place], own)
            else:
                found[place] = own
    op.give(op.out, found)


def unknown(op: Operation) -> None:
    """Pin what an operation without a rule touches."""
    for tensor in tree_leaves(dict(op.args)):
        if isinstance(tensor, Tensor):
            op.pin(op.axes(tensor), f"what {op.name} does with channels is not known{op.where()}")


def has_dims(op: Operation) -> bool:
    """Return whether an operation states the axes that it runs over."""
    names = {argument.name for argument in op.func._schema.arguments}
    return bool(names & {"dim", "dims"})


def is_pointwise(func: Any) -> bool:
    """Return whether PyTorch says that an operation works on each value by itself."""
    return torch.Tag.pointwise in func.tags


_PLACES = {
    1: (
        "avg_pool1d", "adaptive_avg_pool1d", "max_pool1d_with_indices", "upsample_nearest1d",
        "upsample_linear1d", "reflection_pad1d", "replication_pad1d", "_upsample_nearest_exact1d",
        "max_pool1d", "adaptive_max_pool1d",
    ),
    2: (
        "avg_pool2d", "_adaptive_avg_pool2d", "adaptive_avg_pool2d", "max_pool2d_with_indices",
        "adaptive_max_pool2d", "upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d",
        "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa", "_upsample_nearest_exact2d",
        "reflection_pad2d", "replication_pad2d", "grid_sampler_2d", "mkldnn_adaptive_avg_pool2d",
        "mkldnn_max_pool2d", "max_pool2d", "max_unpool2d", "fractional_max_pool2d", "tril", "triu",
    ),
    3: (
        "avg_pool3d", "_adaptive_avg_pool3d", "max_pool3d_with_indices", "adaptive_max_pool3d",
        "upsample_nearest3d", "upsample_trilinear3d", "reflection_pad3d", "replication_pad3d",
        "grid_sampler_3d", "_upsample_nearest_exact3d", "mkldnn_max_pool3d", "max_pool3d",
    ),
}  # fmt: skip


def _on_places(trailing: int) -> Any:
    def rule(op: Operation) -> None:
        spatial(op, trailing)

    return rule


RULES: dict[str, Any] = {
    **dict.fromkeys(
        (
            "native_batch_norm", "_native_batch_norm_legit", "cudnn_batch_norm",
            "_native_batch_norm_legit_no_training", "batch_norm", "miopen_batch_norm",
            "_batch_norm_with_update", "_batch_norm_no_update", "_batch_norm_impl_index",
        ),
        batch_norm,
    ),
    "native_layer_norm": layer_norm, "layer_norm": layer_norm, "_fused_rms_norm": layer_norm,
    "rms_norm": layer_norm, "native_group_norm": group_norm,
    "_weight_norm_interface": weight_norm, "glu": glu, "copy_": copy_,
    **dict.fromkeys(
        (
            "_prelu_kernel", "native_dropout", "dropout", "rrelu_with_noise", "clamp", "where",
            "masked_fill", "fill_", "zero_", "hardtanh", "fill", "alpha_dropout", "maximum",
            "feature_dropout", "hardswish", "hardsigmoid", "mish", "celu", "elu", "gelu",
            "hardshrink", "softshrink", "leaky_relu", "log_sigmoid_forward", "log_sigmoid",
            "softplus", "threshold", "heaviside", "isin", "isinf", "xlogy", "rsub", "true_divide",
            "divide", "floor_divide", "multiply", "subtract", "relu", "relu6", "abs", "absolute",
            "rrelu_with_noise_functional", "_add_relu", "log_normal",
        ),
        pointwise,
    ),
    **dict.fromkeys(
        (
            "sum", "nansum", "mean", "var", "std", "var_mean", "std_mean", "amax", "amin",
            "aminmax",
            "max", "min", "argmax", "argmin", "prod", "any", "all", "norm", "linalg_vector_norm",
            "logsumexp", "_softmax", "_log_softmax", "_safe_softmax", "softmax", "log_softmax",
            "cumsum", "cumprod", "cummax", "cummin", "sort", "argsort", "topk", "median", "mode",
            "kthvalue", "count_nonzero", "std_mean", "nanmedian", "logcumsumexp", "_cummax_helper",
            "_fft_r2c", "_fft_c2c", "_fft_c2r", "nanmean",
        ),
        reduction,
    ),
    **{name: _on_places(trailing) for trailing, names in _PLACES.items() for name in names},
    "scatter": scatter, "roi_align": regions, "roi_pool": regions, "ps_roi_align": unknown,
    **dict.fromkeys(
        (
            "zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like",
            "new_zeros", "new_ones", "new_empty", "new_full", "_local_scalar_dense", "item",
            "equal", "is_nonzero", "_assert_async", "allclose", "isfinite_all", "empty_strided",
            "new_empty_strided", "sym_size", "sym_stride", "sym_numel", "is_same_size", "bernoulli",
            "_assert_tensor_metadata", "_has_compatible_shallow_copy_type", "shape", "randint_like",
            "bernoulli_", "uniform_", "normal_", "random_", "exponential_", "nonzero", "set_data",
        ),
        nothing,
    ),
    **dict.fromkeys(
        ("index_put", "index_put_", "_index_put_impl_", "scatter_add",
         "scatter_add_", "index_add", "index_add_", "masked_scatter", "put_", "index_copy_"),
        index_put,
    ),
}  # fmt: skip
