import copy
import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_prune import ChannelMasker, Distiller, PhysicalPruner, PruningReport, SliceMasker
from lightning_prune.callbacks.exponential_moving_average import ExponentialMovingAverage
from lightning_prune.callbacks.trainer.averages import averaged_copies
from lightning_prune.files.read_checkpoint import read_checkpoint
from tests.callbacks.classifiers import Classifier, Foreign, ManualClassifier, trainer
from tests.plain_stages import plain


def masks(folder: Path, **options: Any) -> ChannelMasker:
    """Mask half of the channels at the start of epoch 1, in one step."""
    chosen = {"start_epoch": 1, "end_epoch": 2, "pruning_ratio": 0.5, "hold_epochs": 1}
    dense = str(folder / "dense.ckpt")
    return plain(ChannelMasker, **{**chosen, "dense_checkpoint": dense, **options})


def fit(
    folder: Path, model: pl.LightningModule, *further: Any, epochs: int = 4, **options: Any
) -> pl.Trainer:
    pl.seed_everything(0, verbose=False)
    ckpt = options.pop("ckpt_path", None)
    stages = [options.pop("masker", None) or masks(folder), plain(PhysicalPruner)]
    run = trainer(folder, [*stages, *further], epochs, **options)
    run.fit(model, ckpt_path=ckpt, weights_only=True)
    return run


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(ours: nn.Module, theirs: nn.Module) -> bool:
    a, b = ours.state_dict(), theirs.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Watch(pl.Callback):
    """Notes logged losses, and gradients as they are before each optimizer step."""

    def __init__(self) -> None:
        self.losses: dict[int, float] = {}
        self.gradients: list[tuple[int, dict[str, Tensor]]] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        found = {n: p.grad.clone() for n, p in pl_module.named_parameters()}
        self.gradients.append((trainer.current_epoch, found))

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if "distill/loss" in trainer.callback_metrics:
            self.losses[trainer.current_epoch] = float(trainer.callback_metrics["distill/loss"])


# --- what it adds -----------------------------------------------------------------------------


def test_weights_of_zero_are_the_run_without(tmp_path: Path):
    own, other = Classifier(), Classifier()
    fit(tmp_path / "a", own)
    with pytest.warns(UserWarning, match="Distiller has no effect: outputs and features both"):
        fit(tmp_path / "b", other, Distiller(0.0, 0.0))
    assert same(own, other)


def test_nothing_changes_before_the_first_mask(tmp_path: Path):
    other, watch = Classifier(), Watch()
    fit(tmp_path / "b", own := Classifier(), epochs=3)
    with_it = fit(tmp_path / "c", other, Distiller(), watch, epochs=3)
    assert list(watch.losses) == [1, 2]
    assert not same(own, other)
    assert "training_step" not in vars(with_it.lightning_module)
    first = [g for epoch, g in watch.gradients if epoch == 0]
    plain_watch = Watch()
    fit(tmp_path / "d", Classifier(), plain_watch, epochs=3)
    expected = [g for epoch, g in plain_watch.gradients if epoch == 0]
    assert all(torch.equal(a[n], b[n]) for a, b in zip(first, expected, strict=True) for n in a)


def by_hand(model: Any, dense: nn.Module, batch: Any, outputs: float) -> Tensor:
    """The task's loss and the divergence of the outputs, in a forward pass of its own."""
    scores = model.net(batch[0])
    with torch.no_grad():
        wanted = dense.eval()(batch[0])
    divergence = F.kl_div(
        (scores / 4).log_softmax(1), (wanted / 4).softmax(1), reduction="batchmean"
    )
    return F.cross_entropy(scores, batch[1]) + outputs * 16 * divergence


class Compared(pl.Callback):
    """Computes each step's gradient on a copy, with the dense network of the file."""

    def __init__(self, path: Path, outputs: float) -> None:
        self.path, self.outputs = path, outputs
        self.compared: dict[int, int] = {}
        self.expected: dict[str, Tensor] = {}

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, _: int) -> None:
        if trainer.current_epoch == 0:
            return
        dense = Foreign()
        dense.load_state_dict(read_checkpoint(self.path)["state_dict"])
        twin = copy.deepcopy(pl_module)
        twin.zero_grad()
        by_hand(twin, dense, batch, self.outputs).backward()
        self.expected = {n: p.grad for n, p in twin.named_parameters()}

    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        for name, p in pl_module.named_parameters() if trainer.current_epoch else ():
            assert torch.allclose(p.grad, self.expected[name], atol=1e-6), name
        self.compared[trainer.current_epoch] = self.compared.get(trainer.current_epoch, 0) + 1


def test_the_gradient_is_that_of_the_sum(tmp_path: Path):
    """Masked in epoch 1, cut from epoch 2 on."""
    compared = Compared(tmp_path / "dense.ckpt", 0.7)
    # The file is read with the classifier's own names.
    run = fit(tmp_path, Classifier(), Distiller(0.7, 0.0), compared, epochs=3)
    assert compared.compared == {0: 6, 1: 6, 2: 6}
    assert run.lightning_module.net.stem[0].out_channels < 8


class Copied(pl.Callback):
    """Puts the dense weights into the model at every batch: there is nothing to learn then."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, _: int) -> None:
        if trainer.current_epoch == 1:
            pl_module.load_state_dict(read_checkpoint(self.path)["state_dict"])
            pl_module.eval()


def test_a_network_that_equals_the_dense_one_has_no_loss(tmp_path: Path):
    watch = Watch()
    fit(tmp_path, Classifier(), Distiller(), Copied(tmp_path / "dense.ckpt"), watch, epochs=3)
    assert watch.losses[1] == pytest.approx(0.0, abs=1e-9)


# --- ways to train ----------------------------------------------------------------------------


class AsDict(Classifier):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return {"loss": super().training_step(batch, batch_idx), "more": torch.ones(1)}


class Through(Classifier):
    """Calls its network, not itself; takes no index."""

    def training_step(self, batch: Any) -> Tensor:  # type: ignore[override]
        return F.cross_entropy(self.net(batch[0]), batch[1])


@pytest.mark.parametrize("kind", [AsDict, Through])
def test_other_training_steps_train_alike(kind: Any, tmp_path: Path):
    own, other = Classifier(), kind()
    fit(tmp_path / "a", own, Distiller())
    fit(tmp_path / "b", other, Distiller())
    assert same(own, other)


def test_accumulated_batches_share_the_loss(tmp_path: Path):
    """The mean of the gradients of two batches, each with its part of the second loss."""
    single, double = Watch(), Watch()
    fit(tmp_path / "a", Frozen(), Distiller(), single, epochs=3)
    fit(tmp_path / "b", Frozen(), Distiller(), double, epochs=3, accumulate_grad_batches=2)
    ours = [g for epoch, g in double.gradients if epoch == 1]
    parts = [g for epoch, g in single.gradients if epoch == 1]
    assert len(ours) == 3
    for i, found in enumerate(ours):
        for name, value in found.items():
            expected = (parts[2 * i][name] + parts[2 * i + 1][name]) / 2
            assert torch.allclose(value, expected, atol=1e-6), name


class Frozen(Classifier):
    """Does not move: learning rate 0, and norms in eval mode."""

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.eval()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.0)


@pytest.mark.parametrize("features", [0.0, 1.0])
def test_a_gradient_scaler_scales_both_losses(features: float, tmp_path: Path):
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    half, full = Watch(), Watch()
    plugin = MixedPrecision("16-mixed", "cpu", scaler=scaler)
    fit(tmp_path / "a", Frozen(), Distiller(1.0, features), half, plugins=[plugin], epochs=3)
    fit(tmp_path / "b", Frozen(), Distiller(1.0, features), full, epochs=3)
    assert half.losses[1] == pytest.approx(full.losses[1], rel=0.02)
    for (_, ours), (_, theirs) in zip(half.gradients, full.gradients, strict=True):
        for name, value in theirs.items():
            assert torch.allclose(ours[name], value, rtol=0.1, atol=0.02 * value.abs().max()), name


class Compiled(Classifier):
    def __init__(self) -> None:
        super().__init__()
        self.net = torch.compile(self.net, backend="eager")


def test_compiled_networks(tmp_path: Path):
    own, other = Classifier(), Compiled()
    for name, model in (("a", own), ("b", other)):
        fit(tmp_path / name, model, Distiller(), epochs=3)
    ours, theirs = list(own.state_dict().values()), list(other.state_dict().values())
    tensors = [v for v in ours if v.is_floating_point()]
    assert tensors
    assert all(
        torch.allclose(a, b, atol=1e-6)
        for a, b in zip(tensors, [v for v in theirs if v.is_floating_point()], strict=True)
    )


def test_a_compiled_module_that_is_fitted(tmp_path: Path):
    watch = Watch()
    fit(tmp_path, torch.compile(Classifier(), backend="eager"), Distiller(), watch, epochs=3)
    assert list(watch.losses) == [1, 2]


def test_averages_are_the_dense_network_where_they_are_validated(tmp_path: Path):
    class Seen(pl.Callback):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch == 0:
                self.average = weights(averaged_copies(trainer)[0])

    seen, distiller = Seen(), Distiller()
    average = ExponentialMovingAverage(0.9, 1.0)
    stages: list[Any] = []

    class Twin(pl.Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if distiller._loss is not None and not stages:
                stages.append(weights(distiller._loss._twin.network))

    fit(tmp_path, Classifier(), distiller, average, seen, Twin())
    expected = seen.average
    assert stages[0].keys() == expected.keys()
    assert all(torch.equal(stages[0][name], expected[name]) for name in expected)


def test_it_is_in_no_checkpoint(tmp_path: Path):
    run = fit(tmp_path, Classifier(), Distiller())
    run.save_checkpoint(tmp_path / "last.ckpt")
    content = read_checkpoint(tmp_path / "last.ckpt")
    (state,) = [s for name, s in content["callbacks"].items() if "Distiller" in name]
    assert state.keys() == {"digest", "path", "start_epoch", "kept"}
    assert state["kept"]["net.stem.1"].dtype == torch.int64
    wide = read_checkpoint(tmp_path / "dense.ckpt")["state_dict"]
    assert wide.keys() >= content["state_dict"].keys() - {
        n for n in content["state_dict"] if "lightning_prune" in n
    }


# --- when, and what of ------------------------------------------------------------------------


def test_from_the_cut(tmp_path: Path):
    watch = Watch()
    fit(tmp_path, Classifier(), Distiller(start="cut"), watch)
    assert list(watch.losses) == [2, 3]


def test_masks_and_cut_in_one_epoch(tmp_path: Path):
    watch, distiller = Watch(), Distiller()
    run = fit(tmp_path, Classifier(), distiller, watch, masker=masks(tmp_path, hold_epochs=0))
    assert list(watch.losses) == [1, 2, 3]
    kept = distiller.state_dict()["kept"]
    assert {n: len(k) for n, k in kept.items()} == {
        name: layer.num_features
        for name, layer in run.lightning_module.named_modules()
        if isinstance(layer, nn.BatchNorm2d)
    }


class Grown(pl.Callback):
    """Notes which channels are compared, and checks them against the dense network's weights."""

    def __init__(self, distiller: Distiller) -> None:
        self.distiller, self.seen = distiller, []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, _: int) -> None:
        loss = self.distiller._loss
        if loss is not None:
            self.seen.append({n: (own, dense) for n, (own, dense) in loss.channels.items()})


def test_the_map_follows_masks_and_cuts(tmp_path: Path):
    """Masked in two steps; what is compared never includes a masked channel."""
    distiller = Distiller()
    grown = Grown(distiller)
    masker = masks(tmp_path, end_epoch=3)
    plans = []

    class Plan(pl.Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            plans.append(masker.plan)

        def on_channels_pruned(self, trainer: Any, pl_module: Any, pruned: Any) -> None:
            self.cut = pruned.plan

    noted = Plan()
    fit(tmp_path, Classifier(), distiller, noted, grown, epochs=5, masker=masker)
    norm = {"net.stem.0": "net.stem.1", "net.inner.0": "net.inner.1", "net.deep.0": "net.deep.1"}
    for epoch, plan in ((1, plans[1]), (2, plans[2])):
        compared = grown.seen[6 * (epoch - 1)]
        for group, keep in plan.keep.items():
            own, dense = compared[norm[group]]
            assert own.tolist() == dense.tolist() == keep.tolist()
    assert plans[1].widths() != plans[2].widths()
    for group, keep in noted.cut.keep.items():
        own, dense = grown.seen[-1][norm[group]]
        assert own.tolist() == list(range(len(keep)))
        assert dense.tolist() == keep.tolist()


def test_a_second_cut_composes(tmp_path: Path):
    """The second Trainer prunes the narrow model further, against the network it started from."""
    model = Classifier()
    run = fit(tmp_path, model, Distiller())
    narrow = model.net.stem[0].out_channels
    run.save_checkpoint(tmp_path / "cut.ckpt")
    for start, name in ((model, "dense"), (Classifier(), "cut")):
        wrong = Distiller(teacher=str(tmp_path / f"{name}.ckpt"))
        with pytest.raises(ValueError, match="in the network that is to be pruned, whose channels"):
            fit(tmp_path / "w", start, wrong)
    again = Distiller(teacher=str(tmp_path / "dense.ckpt"), features=0.0)
    watch = Watch()
    fit(tmp_path / "b", model, again, watch)
    assert list(watch.losses) == [1, 2, 3]
    assert model.net.stem[0].out_channels < narrow


def test_slices(tmp_path: Path):
    pl.seed_everything(0, verbose=False)
    dense = trainer(tmp_path, [], 1)
    dense.fit(Classifier())
    dense.save_checkpoint(tmp_path / "dense.ckpt")
    watch = Watch()
    slices = SliceMasker(4, start_epoch=1, end_epoch=2)
    distiller = Distiller(teacher=str(tmp_path / "dense.ckpt"))
    trainer(tmp_path, [slices, distiller, watch], 3).fit(Classifier())
    assert list(watch.losses) == [1, 2]
    with pytest.raises(ValueError, match="no dense network to learn from"):
        trainer(tmp_path, [SliceMasker(4, start_epoch=1, end_epoch=2), Distiller()], 3).fit(
            Classifier()
        )


# --- refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"outputs": -1}, "outputs=-1: pass a number of at least 0"),
        ({"features": float("nan")}, "features=nan"),
        ({"start": "soon"}, "start='soon': pass"),
        ({"temperature": 0}, "temperature=0: pass a number above 0"),
        ({"teacher": 3}, "teacher=3: pass text"),
    ],
)
def test_arguments(given: dict[str, Any], words: str):
    with pytest.raises(ValueError, match=words):
        Distiller(**given)


def test_manual_optimization_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="ManualClassifier optimizes by hand"):
        fit(tmp_path, ManualClassifier(), Distiller())


def test_no_dense_network(tmp_path: Path):
    with pytest.raises(ValueError, match="set dense_checkpoint of the masker"):
        fit(tmp_path, Classifier(), Distiller(), masker=masks(tmp_path, dense_checkpoint=None))
    with pytest.raises(ValueError, match="there is no such file"):
        fit(tmp_path, Classifier(), Distiller(teacher=str(tmp_path / "no.ckpt")))
    with pytest.raises(ValueError, match="no callback masks channels or slices"):
        trainer(tmp_path, [Distiller()], 1).fit(Classifier())


def test_another_network(tmp_path: Path):
    class Other(Classifier):
        def __init__(self) -> None:
            super().__init__()
            self.net.head = nn.Linear(16, 9)

    run = trainer(tmp_path, [], 1)
    run.strategy.connect(Other())
    run.save_checkpoint(tmp_path / "other.ckpt", weights_only=True)
    with pytest.raises(ValueError, match="does not fit Classifier: the teacher is the same"):
        fit(tmp_path, Classifier(), Distiller(teacher=str(tmp_path / "other.ckpt")))


class Functional(Classifier):
    """Calls no module in training."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.linear(batch[0].mean((2, 3)), self.net.head.weight[:, :1]).square().mean()


def test_no_network_in_the_training_step(tmp_path: Path):
    model = Functional()
    with pytest.raises(ValueError, match="training_step of Functional calls no module"):
        fit(tmp_path, model, Distiller())
    assert "training_step" not in vars(model)


def test_training_that_ends_before_the_first_mask(tmp_path: Path):
    with pytest.warns(UserWarning) as found:
        fit(tmp_path, Classifier(), Distiller(), masker=masks(tmp_path, start_epoch=5, end_epoch=6))
    assert any("Distiller has no effect: training ended before" in str(w.message) for w in found)


# --- resumed ----------------------------------------------------------------------------------


RESUMED = pytest.mark.filterwarnings(
    "ignore:The dirpath has changed",
    "ignore:Checkpoint directory .* exists",
    "ignore:Be aware that when using",
    "ignore:You're resuming from a checkpoint that ended before the epoch ended",
    "ignore:.*Found .* that were not in the checkpoint",
)


def states(folder: Path, ckpt: Path | None = None, **options: Any) -> pl.LightningModule:
    every = pl.callbacks.ModelCheckpoint(
        folder / "files", "{step}", every_n_train_steps=1, save_top_k=-1,
        auto_insert_metric_name=False,
    )  # fmt: skip
    model = Classifier()
    fit(folder, model, Distiller(**options), every, ckpt_path=ckpt, enable_checkpointing=True)
    return model


@RESUMED
def test_the_file_must_be_the_same(tmp_path: Path):
    states(tmp_path)
    file, other = tmp_path / "files" / "12.ckpt", tmp_path / "dense.ckpt"
    content = other.read_bytes()
    (tmp_path / "elsewhere.ckpt").write_bytes(content)
    states(tmp_path, file)  # as it is
    other.unlink()
    with pytest.raises(ValueError, match=r"learns from is not there: .*dense.ckpt. Put the file"):
        states(tmp_path, file)
    states(tmp_path, file, teacher=str(tmp_path / "elsewhere.ckpt"))
    state = torch.load(tmp_path / "elsewhere.ckpt", weights_only=True)
    next(iter(state["state_dict"].values())).add_(1)
    torch.save(state, other)
    with pytest.raises(ValueError, match="does not hold the weights that this run began with"):
        states(tmp_path, file)


@RESUMED
def test_another_folder_gets_a_copy(tmp_path: Path):
    states(tmp_path / "a")
    states(tmp_path / "b", tmp_path / "a" / "files" / "18.ckpt")
    assert (tmp_path / "b" / "dense.ckpt").read_bytes() == (
        tmp_path / "a" / "dense.ckpt"
    ).read_bytes()


@RESUMED
def test_a_run_that_was_begun_without_it(tmp_path: Path):
    every = pl.callbacks.ModelCheckpoint(
        tmp_path / "files", "{epoch}", save_top_k=-1, auto_insert_metric_name=False,
        save_on_train_epoch_end=True,
    )  # fmt: skip
    fit(tmp_path, Classifier(), every, enable_checkpointing=True)
    watch = Watch()
    masked, cut = (tmp_path / "files" / f"{epoch}.ckpt" for epoch in (1, 2))
    fit(tmp_path, Classifier(), Distiller(), watch, ckpt_path=masked)
    assert list(watch.losses) == [2, 3]
    with pytest.raises(ValueError, match="cut channels without a Distiller"):
        fit(tmp_path, Classifier(), Distiller(), ckpt_path=cut)
    outputs = Distiller(features=0.0)
    fit(tmp_path, Classifier(), outputs, Watch(), ckpt_path=cut)
    assert outputs.distillation["epoch"] == 3


def test_used_again_in_a_new_run(tmp_path: Path):
    """As a new stage would: nothing of the last run's dense network is left."""
    distiller = Distiller()
    fit(tmp_path / "a", Classifier("adamw"), distiller)
    before = distiller.state_dict()["digest"]
    own, other = Classifier(), Classifier()
    fit(tmp_path / "b", own, distiller)
    fit(tmp_path / "c", other, Distiller())
    assert distiller.state_dict()["digest"] != before
    assert same(own, other)


def test_the_plan_of_the_run_says_when(tmp_path: Path):
    assert "from the first mask on (outputs weigh 1, features 0.5)" in str(
        Distiller(features=0.5).calendar(Classifier(), True)
    )
    assert "from the cut on" in str(Distiller(start="cut").calendar(Classifier(), True))
    assert Distiller(0.0, 0.0).calendar(Classifier(), True) is None


def test_the_report_says_since_when(tmp_path: Path):
    report = PruningReport(str(tmp_path), latency_rounds=0, show=False, figures=False)
    fit(tmp_path, Classifier(), report, Distiller(0.5, 2.0))
    content = json.loads((tmp_path / "pruning_report.json").read_text())
    assert content["distillation"] == {"epoch": 1, "outputs": 0.5, "features": 2.0}


class Shared(pl.LightningModule):
    """Foreign in every way: dicts, two outputs, no example input, attention and layer norms."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.norm = nn.Linear(6, 16), nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.value, self.gate = nn.Linear(16, 3), nn.Linear(16, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.embed(x)
        x = x + self.attention(*[self.norm(x)] * 3, need_weights=False)[0]
        x = x + self.mlp(x)
        return {"value": self.value(x), "gate": self.gate(x).sigmoid()}

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        found = self(batch["x"])
        return (found["value"] * found["gate"] - batch["y"]).square().mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), 1e-2)

    def train_dataloader(self) -> Any:
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(48, 5, 6, generator=generator)
        y = torch.stack([x.sum(2), x[..., 0], x[..., 1] * x[..., 2]], 2)
        rows = [{"x": a, "y": b} for a, b in zip(x, y, strict=True)]
        return torch.utils.data.DataLoader(rows, batch_size=8)


@RESUMED
def test_a_foreign_module_cut_to_half_and_its_dense_network_whole(tmp_path: Path):
    """The dense network is built from the narrow module: exact norms and heads come back too."""
    model, watch, distiller = Shared(), Watch(), Distiller()
    twins: list[Any] = []

    class Twin(pl.Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            twins[:] = [distiller._loss._twin.network] if distiller._loss else []

    every = pl.callbacks.ModelCheckpoint(
        tmp_path / "files", "{epoch}", save_top_k=-1, auto_insert_metric_name=False,
        save_on_train_epoch_end=True,
    )  # fmt: skip
    fit(tmp_path, model, distiller, watch, Twin(), every, enable_checkpointing=True)
    assert model.embed.out_features < 16
    assert list(watch.losses) == [1, 2, 3]
    x = torch.randn(2, 5, 6)
    expected = twins[0](x)["value"]
    distiller = Distiller()
    fit(
        tmp_path, again := Shared(), distiller, Watch(), Twin(), ckpt_path=tmp_path / "files/2.ckpt"
    )
    assert twins[0].embed.out_features == 16
    assert torch.equal(twins[0](x)["value"], expected)
    assert again.embed.out_features == model.embed.out_features
