import pytest
import torch
from torch import nn

from lightning_prune.neural.network.conv_gru import ConvGRU

CASES = ["T1", "T4", "T7", "no_h0", "residual", "depthwise", "clip_train", "clip_eval"]


@pytest.mark.parametrize("case", CASES)
def test_reproduces_the_reference(golden, case):
    settings = golden.cases[f"convgru_{case}"]
    named = {
        name: settings[name]
        for name in ("learnable_h0", "use_residual", "use_depthwise", "grad_clip_val")
        if name in settings
    }
    golden.check(f"convgru_{case}", ConvGRU(settings["in_ch"], settings["hid"], 3, **named))


@pytest.mark.parametrize("frames", [1, 5])
@pytest.mark.parametrize("candidate", ["fixed", "standard", "missing"])
def test_equals_the_cell_step_by_step(frames, candidate):
    torch.manual_seed(0)
    gru = ConvGRU(4, 6, candidate=candidate)
    gru.h0.data.normal_()
    x = torch.randn(2, 4, frames, 3, 3)
    h = gru.h0.expand(2, -1, 3, 3)
    for index in range(frames):
        h = gru.cell(x[:, :, index], h)
    torch.testing.assert_close(gru(x), h)


def test_width_follows_from_the_tensors():
    torch.manual_seed(0)
    wide, narrow = ConvGRU(3, 6, use_layer_norm=False), ConvGRU(3, 4, use_layer_norm=False)
    keep = torch.tensor([0, 2, 3, 5])
    gates = torch.cat([keep + 6 * gate for gate in range(3)])
    with torch.no_grad():
        wide.h0.normal_()
        dead = torch.tensor([1, 4])
        dead_gates = torch.cat([dead + 6 * gate for gate in range(3)])
        wide.h0[:, dead] = 0
        wide.cell.conv_x.weight[dead_gates] = 0
        wide.cell.conv_x.bias[dead_gates] = 0
        wide.cell.conv_h.weight[dead_gates] = 0
    x = torch.randn(2, 3, 12, 4, 4)
    masked = wide(x)
    # The channels that are held at zero stay there, exactly, through time.
    assert torch.equal(masked[:, dead], torch.zeros_like(masked[:, dead]))
    cut = wide
    for conv in (cut.cell.conv_x, cut.cell.conv_h):
        conv.weight = nn.Parameter(conv.weight.detach()[gates])
    cut.cell.conv_h.weight = nn.Parameter(cut.cell.conv_h.weight.detach()[:, keep])
    cut.cell.conv_x.bias = nn.Parameter(cut.cell.conv_x.bias.detach()[gates])
    cut.h0 = nn.Parameter(cut.h0.detach()[:, keep])
    torch.testing.assert_close(cut(x), masked[:, keep], atol=1e-6, rtol=1e-5)
    narrow.load_state_dict(cut.state_dict())
    assert torch.equal(narrow(x), cut(x))


def test_input_convolution_runs_once_and_the_recurrent_one_each_step():
    calls = []
    gru = ConvGRU(4, 6, use_depthwise=True)
    for name, module in gru.named_modules():
        if isinstance(module, nn.Conv2d | nn.GroupNorm):
            module.register_forward_hook(lambda *_, name=name: calls.append(name))
    gru(torch.randn(1, 4, 3, 3, 3))
    assert {name: calls.count(name) for name in calls} == {
        "cell.conv_x.0": 1,
        "cell.conv_x.1": 1,
        "cell.conv_h.0": 3,
        "cell.conv_h.1": 3,
        "cell.layer_norm": 3,
    }


def test_clamps_in_training_alone():
    gru = ConvGRU(2, 3, grad_clip_val=0.01)
    x = 10 * torch.randn(1, 2, 4, 3, 3)
    assert gru.train()(x).abs().max() <= 0.01
    assert gru.eval()(x).abs().max() > 0.01


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("learnable", [True, False])
@pytest.mark.parametrize("candidate", ["fixed", "standard", "missing"])
def test_autocast(dtype, learnable, candidate):
    torch.manual_seed(0)
    gru = ConvGRU(3, 4, learnable_h0=learnable, candidate=candidate)
    x = torch.randn(2, 3, 3, 4, 4)
    with torch.autocast("cpu", dtype):
        out = gru(x)
    torch.testing.assert_close(out.float(), gru(x), atol=5e-2, rtol=5e-2)
    out.float().sum().backward()
    assert all(p.grad.isfinite().all() for p in gru.parameters())


def test_refuses():
    with pytest.raises(ValueError, match="use_residual=True adds the input"):
        ConvGRU(3, 4, use_residual=True)
    with pytest.raises(ValueError, match=r"grad_clip_val=0\.0"):
        ConvGRU(3, 4, grad_clip_val=0.0)
