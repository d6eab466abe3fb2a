"""The slice penalty in training; oracles are a loop by hand and the values in the log."""

import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch.nn.functional import cross_entropy

from lightning_prune.callbacks.slice_regularizer import SliceRegularizer
from lightning_prune.functional.slice_penalty import slice_penalty
from lightning_prune.functional.slices import slice_norms
from tests.callbacks.classifiers import Classifier, ManualClassifier, patterns, trainer

CONVS = ("stem", "inner", "outer", "deep")


def conv(net, name):
    return getattr(net, name)[0].weight


def by_hand(reg, epochs, acts, first=False, accumulate=1):
    """The same run in plain PyTorch, with the penalty as a term of the loss."""
    net = Classifier().net
    optimizer = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9, weight_decay=1e-2)
    images, label = patterns(96, 1).tensors
    for epoch in range(epochs):
        batches = list(zip(images.split(16), label.split(16), strict=True))
        for number, (x, y) in enumerate(batches):
            (cross_entropy(net(x), y) / accumulate).backward()
            if (number + 1) % accumulate:
                continue
            if acts(epoch):
                sum(slice_penalty(conv(net, n), 4, reg, first).value for n in CONVS).backward()
            optimizer.step()
            optimizer.zero_grad()
    return net


@pytest.mark.parametrize(
    ("options", "acts", "accumulate"),
    [
        ({}, lambda epoch: True, 1),
        ({"start_epoch": 1, "end_epoch": 2, "disable_first_index": True}, lambda e: e == 1, 1),
        ({"start_epoch": 1}, lambda epoch: epoch >= 1, 3),
    ],
)
def test_it_is_the_loss_term_once_per_optimizer_step(options, acts, accumulate, tmp_path):
    model = Classifier()
    stage = SliceRegularizer(1e-3, 4, **options)
    trainer(tmp_path, [stage], 3, accumulate_grad_batches=accumulate).fit(model)
    first = options.get("disable_first_index", False)
    net = by_hand(1e-3, 3, acts, first, accumulate)
    for name, value in net.state_dict().items():
        assert torch.allclose(model.net.state_dict()[name], value, atol=1e-5), name
    plain = by_hand(0.0, 3, acts, first, accumulate)
    assert not torch.allclose(conv(model.net, "deep"), conv(plain, "deep"), atol=1e-4)


def test_values_in_the_log_are_those_of_the_weights(tmp_path):
    model = Classifier()
    run = trainer(tmp_path, [SliceRegularizer(2e-3, 4, layers=["net.inner.0", "net.deep.0"])], 1)
    run.fit(model)
    norms = torch.cat([slice_norms(conv(model.net, n), 4).flatten() for n in ("inner", "deep")])
    logged = run.callback_metrics
    assert logged["slices/penalty"].item() == pytest.approx(2e-3 * len(norms))
    assert logged["slices/log_sum"].item() == pytest.approx(norms.log().sum().item(), rel=1e-5)
    assert logged["slices/nonzero"].item() == 1


def test_slices_shrink(tmp_path):
    """A strong penalty leaves far more slices near zero than none."""
    small = {}
    for reg in (0.0, 3e-3):
        model = Classifier("adamw")
        stages = [SliceRegularizer(reg, 4)] if reg else []
        trainer(tmp_path, stages, 12).fit(model)
        norms = torch.cat([slice_norms(conv(model.net, n), 4).flatten() for n in CONVS])
        small[reg] = (norms < 0.02).float().mean().item()
    assert small[3e-3] > small[0.0] + 0.2


def test_manual_optimization(tmp_path):
    """The optimizer of the head does not add the penalty a second time."""
    plain, pulled = ManualClassifier(), ManualClassifier()
    trainer(tmp_path, [], 1, limit_train_batches=1).fit(plain)
    start = conv(ManualClassifier().net, "deep").detach()
    trainer(tmp_path, [SliceRegularizer(1e-2, 4)], 1, limit_train_batches=1).fit(pulled)
    leaf = start.clone().requires_grad_()
    slice_penalty(leaf, 4, 1e-2).value.backward()
    moved = conv(plain.net, "deep") - conv(pulled.net, "deep")
    assert torch.allclose(moved, 0.05 * leaf.grad, atol=1e-6)


@pytest.mark.parametrize("fused", [False, True])
def test_the_loss_scale_does_not_change_it(fused, tmp_path):
    class Module(Classifier):
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.05, fused=fused)

    def trained(reg, *plugins):
        model = Module()
        stages = [SliceRegularizer(reg, 4)] if reg else []
        trainer(tmp_path, stages, 1, limit_train_batches=1, plugins=list(plugins)).fit(model)
        return conv(model.net, "deep").detach()

    def half():
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        return MixedPrecision("16-mixed", "cpu", scaler=scaler)

    moved = trained(0) - trained(1e-2)
    scaled = trained(0, half()) - trained(1e-2, half())
    assert torch.allclose(scaled, moved, atol=1e-6)


def test_what_has_no_effect_says_so(tmp_path):
    for options in ({"reg": 0.0}, {"start_epoch": 5}):
        stage = SliceRegularizer(**{"reg": 1e-4, "block_size": 4} | options)
        with pytest.warns(UserWarning, match="SliceRegularizer has no effect"):
            trainer(tmp_path, [stage], 1, limit_train_batches=1).fit(Classifier())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reg": -1.0}, "reg=-1.0: pass a number of at least 0"),
        ({"block_size": 0}, "block_size=0"),
        ({"start_epoch": 3, "end_epoch": 3}, "end_epoch=3: pass an integer of at least 4"),
        ({"layers": "net"}, "pass a list of layer names"),
    ],
)
def test_arguments_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        SliceRegularizer(**options)
