"""Compares modules with the recorded reference: outputs and gradients."""

import json

import numpy as np
import torch

# From the names of the reference to ours, in this order.
NAMES = (
    ("main_block.components.", "main."),
    ("components.", ""),
    ("conv.conv.", "conv."),
    ("layers.", "blocks."),
    ("shortcut.0.", "shortcut."),
    ("se.1.", "gate.reduce."),
    ("se.3.", "gate.expand."),
    ("temporal_conv.", "conv."),
)


class Golden:
    def __init__(self, golden_vectors):
        self.arrays = np.load(golden_vectors / "11_visioncore.npz")
        text = (golden_vectors / "11_visioncore.json").read_text(encoding="utf-8")
        self.cases = {case["name"]: case for case in json.loads(text)["cases"]}

    def tensor(self, case, name):
        return torch.tensor(self.arrays[f"{case}|{name}"])

    def part(self, case, part):
        """The tensors of a part of a case by our names; the fixed blur is not among them."""
        prefix = f"{case}|{part}|"
        keys = [key for key in self.arrays.files if key.startswith(prefix)]
        tensors = {ours(key.removeprefix(prefix)): torch.tensor(self.arrays[key]) for key in keys}
        return {name: value for name, value in tensors.items() if not name.endswith("blur")}

    def inputs(self, case):
        count = sum(f"{case}|x{index}" in self.arrays.files for index in range(2))
        return [self.tensor(case, f"x{index}") for index in range(count)]

    def check(self, case, module, atol=1e-5, rtol=1e-4):
        """Load the weights of a case, compare the output, and the gradients where recorded."""
        # What we do not train, and the reference lacks, keeps what it starts with.
        fixed = {name: p for name, p in module.named_parameters() if not p.requires_grad}
        module.load_state_dict(fixed | shaped(self.part(case, "w"), module))
        module.train(bool(self.cases[case]["training"]))
        inputs = [value.requires_grad_() for value in self.inputs(case)]
        out = module(*inputs)
        torch.testing.assert_close(out, self.tensor(case, "y"), atol=atol, rtol=rtol)
        if f"{case}|cotangent" not in self.arrays.files:
            return
        (out * self.tensor(case, "cotangent")).sum().backward()
        for index, value in enumerate(inputs):
            if f"{case}|grad_x{index}" in self.arrays.files:
                wanted = self.tensor(case, f"grad_x{index}")
                torch.testing.assert_close(value.grad, wanted, atol=atol, rtol=rtol)
        wanted = shaped(self.part(case, "grad_w"), module)
        for name in module.state_dict().keys() - fixed.keys():
            parameter = module.get_parameter(name)
            torch.testing.assert_close(
                parameter.grad, wanted[name], atol=atol, rtol=rtol, msg=lambda m, n=name: n + m
            )


def ours(name):
    for theirs, own in NAMES:
        name = name.replace(theirs, own)
    return name


def shaped(tensors, module):
    """Give each tensor the shape it has in our module: (4, 1, 16) to (4, 1, 16, 1, 1)."""
    own = module.state_dict()
    return {name: value.view_as(own[name]) for name, value in tensors.items() if name in own} | {
        name: value for name, value in tensors.items() if name not in own
    }
