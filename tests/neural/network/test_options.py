import dataclasses

import pytest

from lightning_prune.neural.network.options import (
    BlockOptions,
    ConvNetOptions,
    FrontendOptions,
    ModulatorOptions,
    PoolOptions,
    ReadoutOptions,
)

KINDS = [
    BlockOptions, ConvNetOptions, FrontendOptions, ModulatorOptions, PoolOptions, ReadoutOptions
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_defaults_survive_a_mapping(kind):
    options = kind()
    assert kind.from_dict(dataclasses.asdict(options)) == options
    assert kind.from_dict({}) == options


def test_reads_nested_lists():
    content = {
        "channels": [8, 16],
        "blocks": [{"kernel_size": [3, 5, 5], "padding": 3}, {"pool": {"stride": 2}}],
    }
    options = ConvNetOptions.from_dict(content)
    assert options.channels == (8, 16)
    first, second = options.blocks
    assert first.kernel == (3, 5, 5)
    assert first.borders == (3, 3)
    assert second.borders == (1, 1)
    assert second.pool == PoolOptions()


def test_default_padding_keeps_the_size():
    assert BlockOptions(kernel_size=(3, 5, 3), dilation=(1, 2, 1)).borders == (4, 1)


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        (ModulatorOptions, {"use_layernorm": True}, r"did you mean use_layer_norm\?"),
        (ModulatorOptions, {"xyz": 1}, "allowed are behavior_dim"),
        (ModulatorOptions, {"hidden_dim": 2.5}, "hidden_dim=2.5: pass an integer"),
        (ModulatorOptions, {"hidden_dim": True}, "hidden_dim=true: pass an integer"),
        (ModulatorOptions, {"kernel_size": 4}, "kernel_size=4: pass an odd"),
        (ModulatorOptions, {"use_residual": "yes"}, "use_residual='yes': pass true or false"),
        (ModulatorOptions, {"grad_clip_val": -1}, "grad_clip_val=-1"),
        (
            ModulatorOptions,
            {"candidate": "x"},
            "candidate='x': pass 'fixed', 'standard' or 'missing'",
        ),
        (ReadoutOptions, {"initial_std": 0}, "initial_std=0: pass a number above 0"),
        (ReadoutOptions, {"initial_std": float("nan")}, "initial_std=nan"),
        (FrontendOptions, {"init": "x"}, "init='x': pass 'gaussian_derivatives' or 'default'"),
        (BlockOptions, {"dropout": 1.0}, r"dropout=1.0: pass a number in \[0, 1\)"),
        (BlockOptions, {"kernel_size": [3, 3]}, r"kernel_size=\[3, 3\]: pass an integer"),
        (BlockOptions, {"pool": {"r": 2}}, r"BlockOptions.pool.r is no known key"),
        (BlockOptions, {"pool": 2}, "BlockOptions.pool=2: pass a mapping"),
        (ConvNetOptions, {"channels": [8]}, "blocks has 3 entries and channels 1"),
        (ConvNetOptions, {"channels": []}, r"channels=\[\]: pass a list"),
        (
            ConvNetOptions,
            {"channels": [8, 8, 0]},
            r"channels=\[8, 8, 0\]: pass a list of integers of at least 1",
        ),
        (ConvNetOptions, {"use_weight_norm": True}, "weight norm is for standard"),
        (
            ConvNetOptions,
            {"conv_type": "dense"},
            "conv_type='dense': pass 'depthwise' or 'standard'",
        ),
        (
            ConvNetOptions,
            {"channels": [4], "blocks": [{"dropout": "a"}]},
            r"ConvNetOptions.blocks\[0\].dropout='a'",
        ),
        (ConvNetOptions, [1], r"ConvNetOptions=\[1\]: pass a mapping"),
    ],
)
def test_refuses_with_the_name_of_the_key(kind, content, message):
    with pytest.raises(ValueError, match=message):
        kind.from_dict(content)
