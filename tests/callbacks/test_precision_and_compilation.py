"""The stages under mixed and half precision, and on compiled modules."""

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision

from lightning_prune.callbacks.exponential_moving_average import ExponentialMovingAverage
from lightning_prune.callbacks.optimizer_resetter import OptimizerResetter
from lightning_prune.callbacks.physical_pruner import PhysicalPruner
from lightning_prune.callbacks.pruning_report import PruningReport
from tests.callbacks.classifiers import GROUPS, Classifier, masker, trainer


def stages(folder):
    mask = masker(start_epoch=1, mac_target=0.4)
    report = PruningReport(
        str(folder), latency_rounds=1, latency_runtime="pytorch", show=False, figures=False
    )
    return [mask, PhysicalPruner(), OptimizerResetter(), report]


class Masked(pl.Callback):
    def __init__(self, stage):
        self.stage, self.alive = stage, []

    def on_train_batch_end(self, trainer, pl_module, *_):
        if self.stage.plan:
            rows = self.stage.plan.removed("net.deep.0")
            layer = dict(pl_module.named_modules())
            deep = next(m for name, m in layer.items() if name.endswith("deep.0"))
            self.alive.append(bool(deep.weight[rows].any()))


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_a_run_in_other_precisions(precision, tmp_path):
    callbacks, model = stages(tmp_path), Classifier()
    watch = Masked(callbacks[0])
    ema = ExponentialMovingAverage(0.9, 5.0)
    run = trainer(tmp_path, [*callbacks, watch, ema], 5, precision=precision)
    run.fit(model)
    assert watch.alive == [False] * 6
    assert model.net.deep[0].out_channels == 8
    dtype = {"bf16-true": torch.bfloat16, "64-true": torch.float64}.get(precision, torch.float32)
    assert {p.dtype for p in model.parameters()} == {dtype}
    assert callbacks[-1].content.pruned.macs < callbacks[-1].content.dense.macs
    assert run.callback_metrics["val/accuracy"] > 0.6


def test_steps_that_the_scaler_skips_keep_the_masks(tmp_path):
    class Overflowing(Classifier):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            return loss * float("inf") if batch_idx == 3 else loss

    callbacks, model = stages(tmp_path), Overflowing()
    watch = Masked(callbacks[0])
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    plugin = MixedPrecision("16-mixed", "cpu", scaler=scaler)
    run = trainer(tmp_path, [*callbacks, watch], 3, plugins=[plugin])
    run.fit(model)
    assert watch.alive == [False] * 6
    assert scaler.get_scale() == 2.0**7
    assert all(bool(value.isfinite().all()) for value in model.state_dict().values())
    assert model.net.deep[0].out_channels == 8


class Compiled(Classifier):
    def __init__(self):
        super().__init__()
        self.net = torch.compile(self.net, backend="eager")


def test_names_of_compiled_submodules_resolve(tmp_path):
    torch._dynamo.reset()
    callbacks, model = stages(tmp_path), Compiled()
    watch = Masked(callbacks[0])
    run = trainer(tmp_path, [*callbacks, watch], 5)
    run.fit(model)
    assert tuple(d.group for d in callbacks[0].decisions) == GROUPS
    assert watch.alive == [False] * 6
    plain = Classifier()
    trainer(tmp_path, stages(tmp_path), 5).fit(plain)
    assert str(model.net._orig_mod) == str(plain.net)
    for (name, ours), theirs in zip(
        model.net._orig_mod.state_dict().items(), plain.net.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4, msg=name)
    pictures = torch.randn(4, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(pictures), model.net._orig_mod(pictures))


def test_a_checkpoint_of_a_compiled_run_resumes_and_loads(tmp_path):
    torch._dynamo.reset()
    model = Compiled()
    run = trainer(tmp_path, stages(tmp_path), 4)
    run.fit(model)
    run.save_checkpoint(tmp_path / "last.ckpt", weights_only=False)
    loaded = Compiled.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    assert str(loaded) == str(model)
    callbacks = stages(tmp_path)
    trainer(tmp_path, callbacks, 5).fit(
        Compiled(), ckpt_path=tmp_path / "last.ckpt", weights_only=True
    )
    assert callbacks[1].done
