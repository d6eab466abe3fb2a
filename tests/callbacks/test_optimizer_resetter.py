import math

import lightning.pytorch as pl
import pytest
import torch

from lightning_prune.callbacks.optimizer_resetter import OptimizerResetter
from lightning_prune.callbacks.physical_pruner import PhysicalPruner
from tests.callbacks.classifiers import Classifier, ManualClassifier, masker, patterns, trainer
from tests.plain_stages import plain

STEPS = 6  # optimizer steps an epoch
CUT = 2  # epoch of the cut


class Rates(pl.Callback):
    """The learning rate that each optimizer step used, and the state when the reset was done."""

    def __init__(self):
        self.rates, self.optimizers = [], []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.rates.append([group["lr"] for group in optimizer.param_groups])
        self.optimizers.append(id(optimizer))

    def on_channels_pruned(self, trainer, pl_module, pruned):
        self.remembered = sum(len(optimizer.state) for optimizer in trainer.optimizers)


def run(folder, resetter, model=None, epochs=6, extra=(), **options):
    stages = [masker(start_epoch=1), PhysicalPruner(), resetter]
    rates = Rates()
    fitted = trainer(folder, [*stages, rates, *extra], epochs, **options)
    fitted.fit(model or Classifier("adamw", "step"))
    return rates, fitted


def closed_form(peak, warmup, total, final, decay):
    """Warm-up to the peak in ``warmup`` steps, then the decay, step by step."""
    for step in range(total):
        if step < warmup:
            yield peak * (step + 1) / (warmup + 1)
            continue
        p = (step - warmup) / (total - warmup)
        shape = {"cosine": (1 + math.cos(math.pi * p)) / 2, "linear": 1 - p, "constant": 1.0}
        low = 1.0 if decay == "constant" else final
        yield peak * (low + (1 - low) * shape[decay])


@pytest.mark.parametrize("decay", ["cosine", "linear", "constant"])
def test_the_restarted_rate_follows_its_closed_form(decay, tmp_path):
    resetter = plain(OptimizerResetter, lr_scale=0.5, warmup_epochs=0.5, final_lr=0.1, decay=decay)
    rates, fitted = run(tmp_path, resetter)
    before = [3e-3 * 0.9**epoch for epoch in range(CUT) for _ in range(STEPS)]
    after = closed_form(1.5e-3, 3, 4 * STEPS, 0.1, decay)
    assert [rate for (rate,) in rates.rates] == pytest.approx([*before, *after])
    end = 1.5e-3 if decay == "constant" else 1.5e-4
    assert fitted.optimizers[0].param_groups[0]["lr"] == pytest.approx(end)


def test_accumulated_steps_are_counted_as_optimizer_steps(tmp_path):
    resetter = plain(OptimizerResetter, warmup_epochs=1.0, final_lr=0.0, decay="linear")
    rates, _ = run(tmp_path, resetter, accumulate_grad_batches=3)
    after = [rate for (rate,) in rates.rates[2 * CUT :]]
    assert after == pytest.approx([*closed_form(3e-3, 2, 8, 0.0, "linear")])


def test_every_parameter_group_keeps_its_own_rate(tmp_path):
    class TwoGroups(Classifier):
        def configure_optimizers(self):
            norms = [p for p in self.parameters() if p.ndim == 1]
            rest = [p for p in self.parameters() if p.ndim > 1]
            groups = [{"params": rest}, {"params": norms, "lr": 0.01}]
            return torch.optim.SGD(groups, 0.1, momentum=0.9)

    resetter = plain(OptimizerResetter, warmup_epochs=0, decay="constant", lr_scale=2.0)
    rates, _ = run(tmp_path, resetter, TwoGroups(), epochs=3)
    assert rates.rates == [[0.1, 0.01]] * 12 + [[0.2, 0.02]] * 6


def test_statistics_are_cleared_or_kept(tmp_path):
    cleared, _ = run(tmp_path, plain(OptimizerResetter), epochs=3)
    kept, _ = run(tmp_path, OptimizerResetter(clear_statistics=False), epochs=3)
    assert cleared.remembered == 0
    assert kept.remembered == len([*Classifier().parameters()])


def test_schedules_stay_where_the_rate_is_not_restarted(tmp_path):
    rates, fitted = run(tmp_path, OptimizerResetter(restart_lr=False))
    expected = [3e-3 * 0.9**epoch for epoch in range(6) for _ in range(STEPS)]
    assert [rate for (rate,) in rates.rates] == pytest.approx(expected)
    assert type(fitted.lr_scheduler_configs[0].scheduler).__name__ == "StepLR"


@pytest.mark.parametrize("restart", [True, False])
def test_optimizers_can_be_built_anew(restart, tmp_path):
    model = Classifier("adamw", "step")
    resetter = plain(
        OptimizerResetter,
        rebuild=True,
        restart_lr=restart,
        warmup_epochs=0,
        decay="constant",
        lr_scale=0.1,
    )
    rates, fitted = run(tmp_path, resetter, model, epochs=4)
    assert rates.remembered == 0
    assert len(set(rates.optimizers)) == 2
    bound = [p for group in fitted.optimizers[0].param_groups for p in group["params"]]
    assert sorted(map(id, bound)) == sorted(map(id, model.parameters()))
    after = [rate for (rate,) in rates.rates[CUT * STEPS :]]
    # Its own schedule begins again, or the restarted rate takes its place.
    again = [3e-3] * STEPS + [3e-3 * 0.9] * STEPS
    assert after == pytest.approx([3e-4] * 2 * STEPS if restart else again)


def test_manual_optimization_keeps_its_schedules_with_a_warning(tmp_path):
    with pytest.warns(UserWarning, match="no effect under manual optimization"):
        rates, _ = run(tmp_path, plain(OptimizerResetter), ManualClassifier(), epochs=3)
    assert rates.remembered == 0


class Stop(pl.Callback):
    def on_train_epoch_end(self, trainer, pl_module):
        trainer.should_stop = trainer.current_epoch == 2


class Stream(torch.utils.data.IterableDataset):
    """The same pictures without a length."""

    def __iter__(self):
        return iter(patterns(96, 1))


class Streamed(Classifier):
    def train_dataloader(self):
        return torch.utils.data.DataLoader(Stream(), batch_size=16)


@pytest.mark.parametrize(
    ("module", "limits"),
    [(Classifier, {"epochs": -1}), (Streamed, {"epochs": 4})],
    ids=["no-end", "no-length"],
)
def test_a_recovery_of_unknown_length_keeps_its_schedule_with_a_warning(module, limits, tmp_path):
    model = module("adamw", "step")
    with pytest.warns(UserWarning, match="to know the recovery's length"):
        rates, _ = run(tmp_path, plain(OptimizerResetter), model, extra=[Stop()], **limits)
    assert [rate for (rate,) in rates.rates[12:18]] == pytest.approx([3e-3 * 0.81] * 6)


@pytest.mark.parametrize(("module", "epochs"), [(Classifier, 10), (Classifier, -1), (Streamed, 10)])
def test_a_limit_of_steps_is_the_length_of_the_recovery(module, epochs, tmp_path):
    resetter = plain(OptimizerResetter, warmup_epochs=0.5, final_lr=0.0, decay="linear")
    rates, _ = run(tmp_path, resetter, module("adamw"), epochs=epochs, max_steps=22)
    after = [rate for (rate,) in rates.rates[12:]]
    assert after == pytest.approx([*closed_form(3e-3, 3, 10, 0.0, "linear")])


def test_the_warm_up_is_at_most_a_third_of_the_recovery(tmp_path):
    resetter = plain(OptimizerResetter, warmup_epochs=5, decay="constant")
    rates, _ = run(tmp_path, resetter, epochs=3)
    after = [rate for (rate,) in rates.rates[12:]]
    assert after == pytest.approx([1e-3, 2e-3, 3e-3, 3e-3, 3e-3, 3e-3])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr_scale": 0}, "lr_scale=0: pass a number above 0, a multiple of the first rate"),
        ({"warmup_epochs": -1}, "warmup_epochs=-1: pass a number of at least 0"),
        ({"final_lr": 1.5}, r"final_lr=1.5: pass a number in \[0, 1\]"),
        ({"decay": "exp"}, "decay='exp': pass 'cosine', 'linear' or 'constant'"),
    ],
)
def test_arguments_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        OptimizerResetter(**options)


def test_the_rate_restarts_once_at_the_first_mask(tmp_path):
    resetter = OptimizerResetter(restart_at="mask", warmup_epochs=0.5, final_lr=0.1)
    rates, _ = run(tmp_path, resetter)
    before = [3e-3] * STEPS  # the one dense epoch
    after = closed_form(3e-3, 3, 5 * STEPS, 0.1, "cosine")
    assert [rate for (rate,) in rates.rates] == pytest.approx([*before, *after])
    assert rates.remembered == 0  # the cut still clears the statistics


def test_what_cannot_restart_is_said_once(tmp_path):
    resetter = OptimizerResetter(restart_at="mask")
    with pytest.warns(UserWarning, match="no effect under manual optimization") as said:
        run(tmp_path, resetter, ManualClassifier(), epochs=4)
    assert sum("manual optimization" in str(one.message) for one in said) == 1
