import csv
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor

from lightning_prune import BNScalePenalty, ChannelRegularizer, PhysicalPruner
from lightning_prune.graph.trace import trace_groups
from lightning_prune.plan import PruningPlan
from lightning_prune.policies.penalties.channel_regularization import ChannelRegularization
from lightning_prune.policies.penalties.group_norms import group_norms
from tests.callbacks.classifiers import (
    EXAMPLE,
    GROUPS,
    Classifier,
    ManualClassifier,
    masker,
    trainer,
)

REG = {"reg": 0.05, "histograms": False}


class Watcher(pl.Callback):
    """Records how each optimizer step's gradients differ before and after the regularizer.

    Stands before it (``before``) or behind it in the list.
    """

    def __init__(self, seen: list[tuple[Any, ...]], label: str) -> None:
        self.seen, self.label = seen, label

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        grads = {n: p.grad.clone() for n, p in pl_module.named_parameters() if p.grad is not None}
        weights = {n: p.detach().clone() for n, p in pl_module.named_parameters()}
        self.seen.append((self.label, trainer.current_epoch, optimizer, grads, weights))


def differences(seen: list[tuple[Any, ...]]) -> list[tuple[int, Any, dict[str, Tensor], Any]]:
    """Pair what was seen before and after; (epoch, optimizer, added gradients, weights)."""
    pairs = zip(seen[::2], seen[1::2], strict=True)
    return [
        (a[1], a[2], {n: b[3][n] - a[3][n] for n in a[3]}, a[4])
        for a, b in pairs
        if (a[0], b[0]) == ("before", "after")
    ]


def run(
    folder: Path, regularizer: ChannelRegularizer, module: Any, others: Any = (), **options: Any
) -> Any:
    seen: list[tuple[Any, ...]] = []
    stages = [Watcher(seen, "before"), regularizer, *others, Watcher(seen, "after")]
    trainer(folder, stages, **options).fit(module)
    return differences(seen)


def expected_gradient(
    module: pl.LightningModule, weights: dict[str, Tensor], plan: PruningPlan | None = None
) -> dict[str, Tensor]:
    copy = Classifier()
    copy.load_state_dict(weights, strict=False)
    for parameter in copy.parameters():
        parameter.grad = torch.zeros_like(parameter)
    regularization = ChannelRegularization(copy, trace_groups(copy, EXAMPLE), reg=0.05)
    regularization.set_masked(plan or PruningPlan())
    regularization.apply()
    return {name: p.grad for name, p in copy.named_parameters() if p.grad is not None}


def assert_added(found: dict[str, Tensor], expected: dict[str, Tensor], names: Any = None) -> None:
    for name in found if names is None else names:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-6)


# --- when it acts -------------------------------------------------------------------------------


def test_once_per_optimizer_step(tmp_path: Path) -> None:
    module = Classifier()
    steps = run(tmp_path, ChannelRegularizer(**REG), module, epochs=2, accumulate_grad_batches=3)
    assert len(steps) == 4, "6 batches an epoch, 3 of them a step"
    for _, _, added, weights in steps:
        assert_added(added, expected_gradient(module, weights))
        assert added["net.stem.0.weight"].abs().max() > 1e-4
        assert not added["net.head.bias"].any()


def test_start_and_end_epoch(tmp_path: Path) -> None:
    regularizer = ChannelRegularizer(**REG, start_epoch=1, end_epoch=3)
    steps = run(tmp_path, regularizer, Classifier(), epochs=4, limit_train_batches=2)
    acted = [epoch for epoch, _, added, _ in steps if any(bool(v.any()) for v in added.values())]
    assert acted == [1, 1, 2, 2]


def test_before_clipping(tmp_path: Path) -> None:
    # The hook of clipping comes after on_before_optimizer_step: the step is bounded although the
    # penalty alone is larger.
    module = Classifier()
    before = torch.cat([p.detach().flatten().clone() for p in module.parameters()])
    options = {"epochs": 1, "limit_train_batches": 1, "gradient_clip_val": 0.01}
    run(tmp_path, ChannelRegularizer(reg=10.0, histograms=False), module, **options)
    moved = torch.cat([p.detach().flatten() for p in module.parameters()]) - before
    # lr 0.05 times the clipped gradient, and weight decay 1e-2.
    assert float(moved.norm()) < 0.05 * (0.01 + 1.1e-2 * float(before.norm()))


def test_manual_optimization_touches_the_own_parameters_only(tmp_path: Path) -> None:
    module = ManualClassifier()
    steps = run(tmp_path, ChannelRegularizer(**REG), module, epochs=1)
    assert len(steps) == 12, "two optimizers, 6 batches"
    names = {id(p): n for n, p in module.named_parameters()}
    for _, optimizer, added, weights in steps:
        own = {names[id(p)] for group in optimizer.param_groups for p in group["params"]}
        assert_added(added, expected_gradient(module, weights), own)
        assert not any(bool(added[name].any()) for name in added.keys() - own)


class Overflow(pl.Callback):
    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        if trainer.global_step == 0 and trainer.fit_loop.epoch_loop.batch_idx == 1:
            next(pl_module.parameters()).grad.fill_(torch.inf)


def test_with_a_gradient_scaler(tmp_path: Path) -> None:
    def plugin() -> MixedPrecision:
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        return MixedPrecision("16-mixed", "cpu", scaler=scaler)

    module = Classifier()
    options = {"epochs": 1, "accumulate_grad_batches": 2, "plugins": [plugin()]}
    steps = run(tmp_path, ChannelRegularizer(**REG), module, [Overflow()], **options)
    skipped, *others = steps
    assert not bool(skipped[2]["net.stem.0.weight"].isfinite().all())
    for _, _, added, weights in others:
        # Unscaled: the penalty has its own size, whatever the loss was scaled with.
        assert_added(added, expected_gradient(module, weights))
    assert torch.equal(skipped[3]["net.stem.0.weight"], others[0][3]["net.stem.0.weight"])
    assert all(bool(p.isfinite().all()) for p in module.parameters())


class FusedClassifier(Classifier):
    def make_optimizer(self, parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, 0.05, fused=True)


def test_with_an_optimizer_that_unscales_by_itself(tmp_path: Path) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    module = FusedClassifier()
    options = {"epochs": 1, "plugins": [MixedPrecision("16-mixed", "cpu", scaler=scaler)]}
    steps = run(tmp_path, ChannelRegularizer(**REG), module, limit_train_batches=2, **options)
    for _, _, added, weights in steps:
        scaled = {n: 1024 * g for n, g in expected_gradient(module, weights).items()}
        for name, value in added.items():
            torch.testing.assert_close(value, scaled[name], rtol=1e-3, atol=1e-2)


# --- with other stages --------------------------------------------------------------------------


def test_masked_channels_get_nothing_and_it_stops_at_the_cut(tmp_path: Path) -> None:
    regularizer, stage = ChannelRegularizer(**REG), masker(start_epoch=1, matching="all")
    module = Classifier()
    options = {"epochs": 4, "limit_train_batches": 2}
    plans: dict[int, PruningPlan] = {}

    class Plans(pl.Callback):
        def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
            plans[trainer.current_epoch] = stage.plan

    steps = run(tmp_path, regularizer, module, [stage, PhysicalPruner(), Plans()], **options)
    assert bool(plans[1])
    for epoch, _, added, weights in steps:
        if epoch < 2:
            assert_added(added, expected_gradient(module, weights, plans[epoch]))
        else:
            assert not any(bool(grad.any()) for grad in added.values())
    assert regularizer.state_dict() == {"cut": True}


def test_an_end_epoch_goes_on_after_the_cut(tmp_path: Path) -> None:
    regularizer = ChannelRegularizer(**REG, end_epoch=4)
    stages = [masker(hold_epochs=1), PhysicalPruner()]
    module = Classifier()
    steps = run(tmp_path, regularizer, module, stages, epochs=3, limit_train_batches=1)
    wide, narrow = steps[0][2]["net.deep.0.weight"], steps[-1][2]["net.deep.0.weight"]
    assert narrow.shape[0] < wide.shape[0]
    assert bool(narrow.any())


def test_resumed_run_equals_the_whole_one(tmp_path: Path) -> None:
    def fit(module: Classifier, path: Path | None) -> None:
        every = ModelCheckpoint(tmp_path / "kept", "{epoch}", save_top_k=-1, every_n_epochs=1)
        stages = [ChannelRegularizer(**REG), masker(start_epoch=1), PhysicalPruner(), every]
        options: dict[str, Any] = {"enable_checkpointing": True, "limit_train_batches": 3}
        trainer(tmp_path, stages, **options).fit(module, ckpt_path=path, weights_only=True)

    whole = Classifier()
    fit(whole, None)
    (tmp_path / "kept").rename(tmp_path / "first")  # Lightning warns of a folder that is not empty
    for epoch in (0, 1, 2):  # dense, masked, cut
        second = Classifier()
        shutil.rmtree(tmp_path / "kept", ignore_errors=True)
        fit(second, tmp_path / "first" / f"epoch={epoch}.ckpt")
        for name, value in whole.state_dict().items():
            assert torch.equal(value, second.state_dict()[name]), (epoch, name)


def test_module_without_example_input(tmp_path: Path) -> None:
    steps = run(tmp_path, ChannelRegularizer(**REG), Classifier(example=False), epochs=1)
    assert all(bool(added["net.stem.0.weight"].any()) for _, _, added, _ in steps)


def test_layers_and_bn_scales(tmp_path: Path) -> None:
    regularizer = ChannelRegularizer(**REG, layers=["net.deep.*"], penalty=BNScalePenalty())
    steps = run(tmp_path, regularizer, Classifier(), epochs=1, limit_train_batches=1)
    ((_, _, added, weights),) = steps
    assert [name for name, grad in added.items() if bool(grad.any())] == ["net.deep.1.weight"]
    expected = 0.05 * weights["net.deep.1.weight"].sign()
    torch.testing.assert_close(added["net.deep.1.weight"], expected, rtol=1e-4, atol=1e-6)


def test_mac_reg_is_stronger_on_costly_groups(tmp_path: Path) -> None:
    regularizer = ChannelRegularizer(reg=0.0, mac_reg=0.05, histograms=False)
    ((_, _, added, weights),) = run(
        tmp_path, regularizer, Classifier(), epochs=1, limit_train_batches=1
    )
    # A channel of the inner layer costs 2 x 8 x 9 x 64 MACs, one of the stem (with the outer
    # layer, which is tied to it) 9 x 64 + 2 x 12 x 9 x 64 + 16 x 9 x 16; the head is small.
    share = {"net.inner.1.weight": 2 * 8 * 9 * 64 / (25 * 9 * 64 + 16 * 9 * 16)}
    plain = expected_gradient(Classifier(), weights)
    torch.testing.assert_close(
        added["net.stem.1.weight"], plain["net.stem.1.weight"], rtol=1e-3, atol=1e-6
    )
    for name, part in share.items():
        torch.testing.assert_close(added[name], part * plain[name], rtol=1e-3, atol=1e-6)


# --- what it logs -------------------------------------------------------------------------------


def test_logs_norms_and_low_channels(tmp_path: Path) -> None:
    regularizer = ChannelRegularizer(reg=1.0, threshold=0.3)
    loggers = [CSVLogger(tmp_path, "csv"), TensorBoardLogger(tmp_path, "board")]
    module = Classifier()
    fit = trainer(tmp_path, [regularizer], epochs=3, logger=loggers)
    fit.fit(module)
    with (Path(loggers[0].log_dir) / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["regularize/mean_norm"]]
    norms = torch.cat(list(group_norms(module, trace_groups(module, EXAMPLE)).values()))
    assert len(rows) == 3
    assert float(rows[-1]["regularize/mean_norm"]) == pytest.approx(float(norms.mean()), rel=1e-5)
    assert 0 < float(rows[-1]["regularize/low_channels"]) < 1
    assert float(rows[0]["regularize/mean_norm"]) > float(rows[-1]["regularize/mean_norm"])

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(loggers[1].log_dir, size_guidance={"histograms": 0})
    events.Reload()
    expected = {"regularize/norms", *(f"regularize/norms/{name}" for name in GROUPS)}
    assert set(events.Tags()["histograms"]) == expected
    whole = events.Histograms("regularize/norms")
    assert [event.histogram_value.num for event in whole] == [len(norms)] * 3
    assert whole[-1].histogram_value.sum == pytest.approx(float(norms.sum()), rel=1e-4)


def test_histograms_for_weights_and_biases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[dict[str, Any]] = []

    class Experiment:
        def log(self, content: dict[str, Any]) -> None:
            sent.append(content)

    class Logger(WandbLogger):
        experiment = Experiment()

        def __init__(self) -> None:
            pl.loggers.logger.Logger.__init__(self)

        name = version = save_dir = None

        def log_metrics(self, *_: Any, **__: Any) -> None:
            pass

        log_hyperparams = log_graph = after_save_checkpoint = finalize = log_metrics

    fake: Any = types.ModuleType("wandb")
    fake.Histogram = lambda values: ("histogram", len(values))
    monkeypatch.setitem(sys.modules, "wandb", fake)
    fit = trainer(tmp_path, [ChannelRegularizer()], epochs=1, logger=Logger())
    fit.fit(Classifier())
    (content,) = sent
    assert content["trainer/global_step"] == 6
    assert content["regularize/norms/net.deep.0"] == ("histogram", 16)
    assert content["regularize/norms"] == ("histogram", 8 + 12 + 16)


# --- what it refuses and warns of ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reg": -1.0}, "reg=-1.0: pass a number of at least 0, a strength"),
        ({"mac_reg": float("inf")}, "mac_reg=inf"),
        ({"start_epoch": -1}, "start_epoch=-1"),
        ({"start_epoch": 3, "end_epoch": 3}, "end_epoch=3: pass an integer of at least 4"),
        ({"threshold": 1.0}, r"threshold=1.0: pass a number in \(0, 1\)"),
        ({"layers": []}, "pass a list of layer names"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ChannelRegularizer(**options)


def test_unknown_layer_names_its_neighbours(tmp_path: Path) -> None:
    regularizer = ChannelRegularizer(layers=["net.steam.0"])
    with pytest.raises(ValueError, match=r"no layer 'net.steam.0'.*did you mean 'net.stem.0'"):
        trainer(tmp_path, [regularizer]).fit(Classifier())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reg": 0.0}, "has no effect: reg=0.0, mac_reg=0.0"),
        ({"gamma": 0.0}, "has no effect: .*gamma=0.0"),
        ({"start_epoch": 1}, "has no effect: start_epoch=1 is after the last epoch"),
    ],
)
def test_no_effect_warns(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    fit = trainer(tmp_path, [ChannelRegularizer(**options)], epochs=1, limit_train_batches=1)
    with pytest.warns(UserWarning, match=message):
        fit.fit(Classifier())


def test_frozen_or_empty_choice_warns(tmp_path: Path) -> None:
    class Nothing:
        def select(self, *_: Any) -> tuple[str, ...]:
            return ()

    fit = trainer(tmp_path, [ChannelRegularizer(layers=Nothing())], epochs=1)
    with pytest.warns(UserWarning, match="`layers` selects no layer"):
        fit.fit(Classifier())
    module = Classifier()
    for name, parameter in module.named_parameters():
        parameter.requires_grad_("bias" in name)
    fit = trainer(tmp_path, [ChannelRegularizer()], epochs=1)
    with pytest.warns(UserWarning, match="all weights it acts on are frozen"):
        fit.fit(module)
