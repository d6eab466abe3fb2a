"""Statistics and groups for the criteria's tests."""

import torch

from lightning_prune.functional.selection.moments import ClassMoments, class_moments
from lightning_prune.graph.group import ChannelGroups, Group, Member
from lightning_prune.graph.trace import trace_groups
from lightning_prune.observe.activations import ObjectActivations
from lightning_prune.observe.object_sample import ObjectSample
from tests.networks import EXAMPLE, Residual, make

CLASSES = 3
ROWS = (("weight", 0), ("bias", 0))


def residual() -> tuple[torch.nn.Module, ChannelGroups]:
    net = make(Residual)
    return net, trace_groups(net, EXAMPLE)


def values(channels: int, seed: int, objects: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    """Activations (N, C) in which channels answer to the classes in different ways."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(objects) % CLASSES
    centres = 2 * torch.randn(CLASSES, channels, generator=generator)
    return centres[label] + torch.randn(objects, channels, generator=generator), label


def seen(net: torch.nn.Module, layers: tuple[str, ...], seed: int = 0) -> ObjectActivations:
    """Object activations of some layers, as a pass over data would give them."""
    widths = tuple(net.get_submodule(layer).weight.shape[0] for layer in layers)
    rows, label = values(sum(widths), seed)
    return ObjectActivations(layers, widths, class_moments(rows, label, CLASSES), 60, 60)


def one_class(found: ObjectActivations) -> ObjectActivations:
    """The same with all objects in class 0."""
    whole = found.moments
    assert whole is not None
    first = ClassMoments(
        whole.count[:1], whole.mean[:, :1], whole.variance[:, :1], whole.mean_abs[:, :1]
    )
    return ObjectActivations(found.layers, found.widths, first, found.objects, found.matched)


def shuffled_group() -> Group:
    """Two tied producers, the second with its channels in another order."""
    order = torch.tensor([2, 0, 3, 1, 4])
    return Group(
        "a", 5, (
            Member("a", "producer", torch.arange(5), torch.arange(5), ROWS),
            Member("b", "producer", torch.arange(5), order, ROWS),
        ),
    )  # fmt: skip


def sampled(
    net: torch.nn.Module, layers: tuple[str, ...], noise: tuple[str, ...] = (), objects: int = 300
) -> ObjectActivations:
    """Object activations with the sample of them that random labels are dealt out to.

    Of layers of noise no channel answers to the classes; of the others, channels have the profile
    of their number modulo 3.
    """
    generator = torch.Generator().manual_seed(0)
    widths = tuple(net.get_submodule(layer).weight.shape[0] for layer in layers)
    label = torch.arange(objects) % CLASSES
    columns = []
    for layer, width in zip(layers, widths, strict=True):
        # Class means whose differences say the same of no two of the three profiles.
        means = torch.tensor([[3.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 3.0]])
        centres = means[torch.arange(width) % 3] * (layer not in noise)
        columns.append(centres[:, label].T + torch.randn(objects, width, generator=generator))
    values = torch.cat(columns, dim=1)
    return ObjectActivations(
        layers, widths, class_moments(values, label, CLASSES), objects, objects, 8,
        sample=ObjectSample.of(values, label, generator),
    )  # fmt: skip
