"""Finds channel groups by carrying labels through one forward pass."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from lightning_prune.functional.named_tensors import named_tensors
from lightning_prune.graph.forward_pass import call, untouched
from lightning_prune.graph.group import Attention, ChannelGroups, Group
from lightning_prune.graph.head_sizes import head_sizes
from lightning_prune.graph.label_trace import LabelTrace
from lightning_prune.graph.layer_kinds import holds_groups, is_producer, makes_channels, width_of
from lightning_prune.graph.names import layer_of, modules_by_name, plain_name
from lightning_prune.graph.resolve import resolve
from lightning_prune.graph.traceable import check_traceable

_NO_INFLUENCE = "the output of the model does not depend on it"
_ONE_CHANNEL = "it makes one channel, which has to stay"
_ONLY_TRAINING = "only training uses it: it keeps its width, and goes before deployment"
_NOT_CALLED = (
    "the forward pass does not call it: another module takes its weight, or only training uses it"
)


def trace_groups(
    model: nn.Module,
    example_input: Any,
    forward: Callable[[nn.Module, Any], Any] | None = None,
    step: Callable[[nn.Module], Any] | None = None,
    notify: Callable[[str], None] | None = None,
    attention: Attention = "heads",
) -> ChannelGroups:
    """Find the channel groups of a network by tracing one forward pass; none is tried.

    Every position of every axis of every parameter and buffer has a label, which a pass in eval
    mode carries along; where two labelled positions can only go together their labels are
    joined. Classes of joined labels are channels, and channels that touch the same axes are a
    group.

    Where the pass leaves parameters or buffers unused, a copy is traced in training mode too, and
    in one ``step``: the columns of auxiliary heads join the channels that they read. Groups that
    only training makes are refused.

    ``surgery.build_groups`` tries them too, on a copy. The model is left as it was: mode,
    gradients, requires_grad, statistics and random state.

    Args:
        model: Any network; frozen layers included.
        example_input: A tensor, or a tuple or dict of arguments.
        forward: How to call the model, ``forward(model, example_input)``; None for the plain call.
        step: What training does with the model besides, called with a copy in training mode.
        notify: Called with a line where a pass in training mode fails and is left out.
        attention: "heads": whole heads are a group; "width": the same channels of every head are;
            "both": heads, and the width of those that stay.

    Raises:
        ValueError: the network cannot be traced, nothing in it can be pruned, or ``attention`` is
            none of these.

    >>> import torch
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1))
    >>> groups = trace_groups(net, torch.zeros(1, 3, 8, 8))
    >>> [(g.name, g.channels, g.layers("consumer")) for g in groups.values()]
    [('0', 8, ('3',))]
    >>> groups.refused
    {'3': 'its channels reach the output of the model'}
    """
    if attention not in get_args(Attention):
        raise ValueError(
            f"attention={attention!r}: pass 'heads' (whole heads go), 'width' (channels of every "
            "head) or 'both'"
        )
    run = forward or call
    check_traceable(model)
    trace = LabelTrace(model)
    with untouched(model), torch.no_grad():
        model.eval()
        _follow(trace, model, example_input, run)
        in_eval = trace.used()
        if trace.leaves_tensors:
            _follow_training(trace, model, example_input, run, step, notify)
    return _without_training_only(_groups(trace, model, attention), in_eval)


def _follow(
    trace: LabelTrace, model: nn.Module, example: Any, run: Callable[[nn.Module, Any], Any]
) -> None:
    """Trace a pass, or say what it failed on."""
    try:
        with trace.running():
            output = run(model, _varied(example))
            trace.output(output)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a user's code raises
        given = tree_map(lambda v: tuple(v.shape) if hasattr(v, "shape") else v, example)
        raise ValueError(
            f"the forward pass of {type(model).__name__} in eval mode fails on an example input "
            f"{given} ({type(error).__name__}: {error}): pass one that it takes (a tensor, or a "
            "tuple or dict of its arguments; a LightningModule's example_input_array)"
        ) from error


def _follow_training(
    trace: LabelTrace,
    model: nn.Module,
    example: Any,
    run: Callable[[nn.Module, Any], Any],
    step: Callable[[nn.Module], Any] | None,
    notify: Callable[[str], None] | None,
) -> None:
    """Trace what training does on copies, as far as they can do it."""
    labels = trace.labels
    labels.settle()
    statistics = list(labels.statistics)
    varied = _varied(example)
    twice = tree_map(lambda v: torch.cat([v, v]) if isinstance(v, Tensor) and v.ndim else v, varied)
    ways: dict[str, list[Callable[[nn.Module], Any]]] = {
        "the forward pass in training mode": [
            lambda net: run(net, varied),
            lambda net: run(net, twice),  # batch norms of maps of one pixel want two samples
        ]
    }
    if step is not None:
        ways["a training step"] = [step]
    for what, tried in ways.items():
        errors = []
        for way in tried:
            error = _training_error(trace, model, way)
            if error is None:
                break
            errors.append(error)
        if len(errors) == len(tried) and notify is not None:
            notify(f"{what} is left out of the trace, as it fails: {errors[0]}")
    labels.statistics[:] = statistics


def _training_error(
    trace: LabelTrace, model: nn.Module, way: Callable[[nn.Module], Any]
) -> str | None:
    """Trace a run of a copy in training mode; return what it raises, None where it ends well."""
    try:
        net = copy.deepcopy(model).train()
        for module in net.modules():
            if isinstance(module, nn.SyncBatchNorm):
                module.eval()  # it would wait for other processes
        with trace.running(net):
            output = way(net)
            if named_tensors(output):
                trace.output(output)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a user's code raises
        return f"{type(error).__name__}: {error}"
    return None


def _without_training_only(found: ChannelGroups, in_eval: frozenset[str]) -> ChannelGroups:
    """Refuse groups that nothing makes in eval mode: no activations, no MACs to save."""
    groups, refused = {}, dict(found.refused)
    for name, group in found.groups.items():
        holders = group.layers("producer")
        if in_eval.isdisjoint(holders) and "" not in holders:
            refused.update(dict.fromkeys(group.producers, _ONLY_TRAINING))
        else:
            groups[name] = group
    return replace(found, groups=groups, refused=refused)


def _varied(example: Any) -> Any:
    """Replace constant tensors by noise: a constant says nothing of what belongs to no layer."""
    generator = torch.Generator().manual_seed(0)

    def vary(value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point() or not value.numel():
            return value
        if bool((value != value.flatten()[0]).any()):
            return value
        noise = torch.rand(value.shape, generator=generator, dtype=torch.float32)
        return noise.to(value.device, value.dtype)

    return tree_map(vary, example)


def _groups(trace: LabelTrace, model: nn.Module, attention: Attention) -> ChannelGroups:
    order = tuple(_ordered(trace.order, model))
    found = resolve(trace.labels, order, attention)
    modules = modules_by_name(model)

    def known(group: Group) -> Group:
        sizes = (size for size in group.sizes if holds_groups(modules[size.layer]))
        return replace(group, sizes=(*sizes, *head_sizes(modules, group)))

    groups = {group.name: known(group) for group in found.groups}
    others = {name: tuple(map(known, group)) for name, group in found.others.items()}
    made = {layer_of(layer) for group in groups.values() for layer in group.producers}
    refused = dict(found.refused)
    for name, layer in model.named_modules():
        plain = plain_name(name)
        if makes_channels(layer) and plain not in made and plain not in refused:
            refused[plain] = _why_not(layer, plain in trace.order)
    place = {name: number for number, name in enumerate(order)}
    refused = dict(sorted(refused.items(), key=lambda one: place.get(one[0], 1 << 30)))
    return ChannelGroups(groups, refused, order, others=others, attention=attention)


def _why_not(layer: nn.Module, called: bool) -> str:
    if not called:
        return _NOT_CALLED
    return _ONE_CHANNEL if is_producer(layer) and width_of(layer) == 1 else _NO_INFLUENCE


def _ordered(names: Mapping[str, None], model: nn.Module) -> list[str]:
    """Return the leaf layers, and others that make channels, in the order of the pass."""
    modules = {plain_name(name): module for name, module in model.named_modules()}
    return [
        name
        for name in names
        if name in modules
        and (is_producer(modules[name]) or not any(True for _ in modules[name].children()))
    ]
