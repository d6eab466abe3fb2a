"""A small network with kernels of every kind, and times that no machine made."""

import numpy as np
import torch
from torch import nn

from lightning_prune.graph.macs import MacModel
from lightning_prune.latency.job import latency_job
from lightning_prune.latency.units import layer_units
from lightning_prune.surgery.build_groups import build_groups
from lightning_prune.surgery.scramble import scramble


class Small(nn.Module):
    """Convolutions (dense, strided, depthwise), a concatenation and a linear layer."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 24, 3, 2, 1), nn.BatchNorm2d(24), nn.SiLU())
        self.deep = nn.Sequential(nn.Conv2d(24, 24, 3, 1, 1, groups=24), nn.ReLU())
        self.wide = nn.Sequential(nn.Conv2d(24, 40, 1), nn.BatchNorm2d(40), nn.ReLU())
        self.head = nn.Linear(64, 5)

    def forward(self, x):
        stem = self.stem(x)
        both = torch.cat([self.wide(self.deep(stem)), stem], 1)
        return self.head(both.mean((2, 3)))


EXAMPLE = torch.zeros(1, 3, 32, 32)


def small():
    torch.manual_seed(0)
    net = Small().eval()
    scramble(net)
    groups = build_groups(net, EXAMPLE)
    return net, groups, MacModel.of(net, groups, EXAMPLE)


def job_of(net, groups, example=EXAMPLE, **options):
    return latency_job(net, groups, list(groups), example, **options)


def kernel_time(unit, outputs, inputs):
    """A kernel's milliseconds by a made-up law, in whole blocks of 8."""
    area = int(np.prod(unit.kernel or (1,))) * int(np.prod(unit.size))
    whole = [-(-width // 8) * 8 if width > 8 else width for width in (outputs, inputs)]
    return 1e-6 * area * (whole[0] * whole[1] + 3 * whole[0] + 5 * whole[1])


def made_up_times(net, job, macs, factors=(0.2, 1.3, 1e-6, 0.0), example=EXAMPLE):
    """What a machine of that law says, and the times of all whole networks of the job."""
    units = list(dict.fromkeys(layer_units(net, example).values()))
    kernels = [{} for _ in job.kernels]
    for unit, (outputs, inputs), files in zip(units, job.grids, job.files, strict=True):
        for width, place in zip(inputs, files, strict=True):
            kernels[place] = {str(o): kernel_time(unit, o, width) for o in outputs}
    whole = [time_of(net, macs, widths, factors, example) for widths in job.widths]
    facts = {"runtime": "made up", "threads": 1, "machine": "none"}
    return facts | {"kernels": kernels, "whole": whole}


def time_of(net, macs, widths, factors, example=EXAMPLE):
    """The whole time, layer by layer."""
    total = factors[0]
    for name, unit in layer_units(net, example).items():
        out = macs.outputs[name].at(widths, macs.channels) if name in macs.outputs else 1.0
        into = macs.inputs[name].at(widths, macs.channels) if name in macs.inputs else 1.0
        made, read = macs.values[name]
        total += factors[1] * kernel_time(unit, out * unit.outputs, into * unit.inputs)
        total += factors[2] * (made * out + read * into)
    return total
