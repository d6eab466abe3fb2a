import copy

import lightning.pytorch as pl
import pytest
import torch

from lightning_prune.callbacks.physical_pruner import PhysicalPruner
from lightning_prune.graph.macs import count_macs
from lightning_prune.plan import PruningPlan
from tests.callbacks.classifiers import (
    EXAMPLE,
    Classifier,
    Foreign,
    ManualClassifier,
    masker,
    patterns,
    trainer,
)
from tests.plain_stages import plain

PICTURES = patterns(8, 5).tensors[0]


def evaluate(module):
    was = module.training
    with torch.no_grad():
        out = module.eval()(PICTURES).clone()
    module.train(was)
    return out


class Before(pl.Callback):
    """Between masker and pruner: notes model, plan and output at the start of each epoch."""

    def __init__(self, stage):
        self.stage = stage
        self.events = []
        self.steps_after = 0

    def on_train_epoch_start(self, trainer, pl_module):
        if not self.events:
            self.state = {k: v.clone() for k, v in pl_module.state_dict().items()}
            self.output, self.plan = evaluate(pl_module), self.stage.plan
            self.epoch = trainer.current_epoch

    def on_channels_pruned(self, trainer, pl_module, pruned):
        self.events.append(pruned)
        self.cut_output = evaluate(pl_module)
        self.cut_state = {k: v.clone() for k, v in pl_module.state_dict().items()}
        self.rates = [g["lr"] for o in trainer.optimizers for g in o.param_groups]

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.steps_after += bool(self.events)


class Listener(Classifier):
    def __init__(self):
        super().__init__()
        self.events = []

    def on_channels_pruned(self, trainer, pl_module, pruned):
        self.events.append(pruned)


def pruned_run(folder, model, epochs=4, pruner=None, hold=1, **options):
    stage = masker(start_epoch=1, hold_epochs=hold)
    before = Before(stage)
    run = trainer(folder, [stage, before, pruner or plain(PhysicalPruner)], epochs, **options)
    run.fit(model)
    return stage, before, run


@pytest.mark.parametrize("hold", [0, 1])
def test_the_plan_is_cut_and_the_output_stays(hold, tmp_path):
    model = Classifier()
    stage, before, _ = pruned_run(tmp_path, model, hold=hold)
    (pruned,) = before.events
    assert before.epoch == 1 + hold
    assert bool(before.plan)
    assert pruned.plan.state_dict()["channels"] == before.plan.state_dict()["channels"]
    keep = {name: index.tolist() for name, index in before.plan.keep.items()}
    assert {name: index.tolist() for name, index in pruned.plan.keep.items()} == keep
    torch.testing.assert_close(before.cut_output, before.output, atol=1e-5, rtol=0)
    stem, inner = (before.plan.keep[f"net.{name}.0"] for name in ("stem", "inner"))
    old, new = before.state, before.cut_state
    assert torch.equal(new["net.stem.0.weight"], old["net.stem.0.weight"][stem])
    assert torch.equal(new["net.outer.1.running_var"], old["net.outer.1.running_var"][stem])
    assert torch.equal(new["net.inner.0.weight"], old["net.inner.0.weight"][inner][:, stem])
    assert pruned.output_difference < 1e-6
    assert not stage.plan


def test_macs_are_those_of_the_plan(tmp_path):
    model = Classifier()
    _, before, _ = pruned_run(tmp_path, model)
    stem, inner, deep = before.plan.widths().values()
    pixels = 9 * 64
    expected = pixels * (stem + 2 * stem * inner) + 9 * 16 * stem * deep + 4 * deep
    assert count_macs(model, EXAMPLE) == expected


@pytest.mark.parametrize("module", [Classifier, lambda: Classifier("adamw"), ManualClassifier])
def test_every_parameter_is_in_the_optimizer_and_moves(module, tmp_path):
    model = module()
    _, before, run = pruned_run(tmp_path, model)
    assert before.steps_after == 12
    bound = [p for o in run.optimizers for g in o.param_groups for p in g["params"]]
    assert sorted(map(id, bound)) == sorted(map(id, model.parameters()))
    for name, parameter in model.named_parameters():
        assert bool((parameter != before.cut_state[name]).all()), name
    for optimizer in run.optimizers:
        assert set(optimizer.state) <= set(bound)
        for parameter, state in optimizer.state.items():
            shapes = {v.shape for v in state.values() if torch.is_tensor(v) and v.ndim}
            assert shapes <= {parameter.shape}


def test_momentum_is_carried_over_and_schedules_go_on(tmp_path):
    model = Classifier(schedule="step")
    stage = masker(start_epoch=1)

    class Momentum(pl.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 2:
                state = trainer.optimizers[0].state
                self.before = state[pl_module.net.head.weight]["momentum_buffer"].clone()

        def on_channels_pruned(self, trainer, pl_module, pruned):
            state = trainer.optimizers[0].state
            self.after = state[pl_module.net.head.weight]["momentum_buffer"].clone()
            self.keep = pruned.plan.keep["net.deep.0"]

    momentum = Momentum()
    run = trainer(tmp_path, [stage, momentum, PhysicalPruner()], 5)
    run.fit(model)
    assert torch.equal(momentum.after, momentum.before[:, momentum.keep])
    assert run.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.05 * 0.9**5)


def test_callbacks_and_module_are_told_once(tmp_path):
    model = Listener()
    _, before, _ = pruned_run(tmp_path, model, epochs=5)
    assert len(before.events) == len(model.events) == 1
    assert model.events[0] is before.events[0]
    assert set(model.events[0].parameters) >= {"net.stem.0.weight", "net.head.weight"}


def test_training_improves_after_the_cut(tmp_path):
    model = Classifier()
    _, _, run = pruned_run(tmp_path, model, epochs=8)
    assert run.callback_metrics["val/accuracy"] > 0.9
    assert model.net.deep[0].out_channels == 8


class Fixed(pl.Callback):
    """Any callback with a plan and ``finished`` is a masker; this one zeroes by itself."""

    def __init__(self, plan, finished=True):
        self.plan, self.finished = plan, finished

    def on_channels_pruned(self, trainer, pl_module, pruned):
        self.plan = PruningPlan()


class Zeroing(Fixed):
    def on_train_epoch_start(self, trainer, pl_module):
        from lightning_prune.graph.trace import trace_groups
        from lightning_prune.surgery.mask import ChannelMask

        ChannelMask(pl_module, trace_groups(pl_module, EXAMPLE), self.plan).apply()


def plan_of(**keep):
    names = {"deep": ("net.deep.0", 16), "inner": ("net.inner.0", 12)}
    return PruningPlan(
        {names[key][0]: torch.tensor(index) for key, index in keep.items()},
        dict(names[key] for key in keep),
    )


def test_plans_of_several_maskers_are_merged_when_all_are_finished(tmp_path):
    first = Zeroing(plan_of(deep=[0, 1, 2, 3]))
    second = Zeroing(plan_of(deep=[2, 3, 9], inner=[5]))
    model = Classifier()
    trainer(tmp_path, [first, second, PhysicalPruner()], 1).fit(model)
    assert model.net.deep[0].out_channels == 2
    assert model.net.inner[0].out_channels == 1
    model = Classifier()
    waiting = Zeroing(plan_of(inner=[5]), finished=False)
    trainer(tmp_path, [Zeroing(plan_of(deep=[0])), waiting, PhysicalPruner()], 1).fit(model)
    assert str(model.net) == str(Classifier().net)


def test_channels_that_are_not_zero_are_never_cut(tmp_path):
    model = Classifier()
    callbacks = [Fixed(plan_of(deep=[0])), PhysicalPruner()]
    with pytest.raises(RuntimeError, match=r"not zero in net.deep.0.weight, net.deep.1.weight"):
        trainer(tmp_path, callbacks, 1).fit(model)
    assert model.net.deep[0].out_channels == 16


def test_a_cut_that_changes_the_output_ends_the_run(tmp_path):
    class Counting(Foreign):
        def forward(self, x):
            # Depends on the number of channels, which no mask can show, and only in training,
            # so that no trial can either.
            late = self._trainer is not None and self.trainer.current_epoch > 0
            return super().forward(x) * (self.net.deep[0].out_channels if late else 1)

    with pytest.raises(RuntimeError, match="differs from the masked one"):
        pruned_run(tmp_path, Counting())
    _, before, _ = pruned_run(tmp_path, Counting(), pruner=PhysicalPruner(verify=False))
    assert before.events[0].output_difference is None


def test_nothing_to_cut_is_said(tmp_path):
    with pytest.warns(UserWarning, match="has nothing to cut: no callback in the list holds"):
        trainer(tmp_path, [PhysicalPruner()], 1).fit(Classifier())
    with pytest.warns(UserWarning, match="finished but hold no channel at zero"):
        trainer(tmp_path, [Fixed(PruningPlan()), PhysicalPruner()], 1).fit(Classifier())
    with pytest.raises(ValueError, match=r"tolerance=0: pass a number above 0"):
        PhysicalPruner(tolerance=0)


def test_frozen_layers_are_cut_and_stay_frozen(tmp_path):
    model = Classifier()
    for parameter in model.net.stem.parameters():
        parameter.requires_grad_(False)
    before = copy.deepcopy(model.net.stem[0].weight)
    stage, probe, _ = pruned_run(tmp_path, model)
    keep = probe.plan.keep["net.stem.0"]
    assert not model.net.stem[0].weight.requires_grad
    assert torch.equal(model.net.stem[0].weight, before[keep])
    assert len(stage.decisions) == 3
