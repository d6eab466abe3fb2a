"""The stages beside other callbacks, optimizers, schedules and profilers: all train on, cut."""

import itertools
import warnings

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch import callbacks as lit
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.tuner import Tuner
from torch import nn
from torch.nn import functional as F
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, TensorDataset

from lightning_prune.callbacks.channel_masker import ChannelMasker
from lightning_prune.callbacks.optimizer_resetter import OptimizerResetter
from lightning_prune.callbacks.physical_pruner import PhysicalPruner
from tests.callbacks.classifiers import trainer
from tests.plain_stages import plain

WIDTH = 8


class Tiny(pl.LightningModule):
    """A backbone of two convolutions and a head, as Lightning's finetuning callbacks want it."""

    def __init__(self, optimizer=None, schedule=None, interval="epoch"):
        super().__init__()
        torch.manual_seed(0)
        layers = [
            (nn.Conv2d(i, WIDTH, 3, bias=False), nn.BatchNorm2d(WIDTH), nn.ReLU())
            for i in (1, WIDTH)
        ]
        self.backbone = nn.Sequential(*layers[0], *layers[1])
        self.head = nn.Linear(WIDTH, 3)
        self.example_input_array = torch.zeros(1, 1, 6, 6)
        self.make, self.schedule, self.interval = optimizer, schedule, interval
        self.lr, self.batch_size = 0.02, 8
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))

    def forward(self, x):
        return self.head(self.backbone(x).mean((2, 3)))

    def training_step(self, batch, batch_idx):
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))

    def trained(self):
        return [p for p in self.parameters() if p.requires_grad]

    def configure_optimizers(self):
        make = self.make or (lambda p: torch.optim.SGD(p, self.lr, momentum=0.9))
        optimizer = make(self.trained())
        if self.schedule is None:
            return optimizer
        scheduler = {"scheduler": self.schedule(optimizer), "interval": self.interval}
        return {"optimizer": optimizer, "lr_scheduler": {**scheduler, "monitor": "val_loss"}}

    def data(self):
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(16, 1, 6, 6, generator=generator)
        return TensorDataset(images, torch.arange(16) % 3)

    def train_dataloader(self):
        return DataLoader(self.data(), self.batch_size)

    def val_dataloader(self):
        return DataLoader(self.data(), 16)


class Witness(pl.Callback):
    """Notes the parameters at the cut and the rates of every step; checks the optimizers."""

    def __init__(self):
        self.rates, self.cut, self.differences = [], None, []

    def on_channels_pruned(self, trainer, pl_module, pruned):
        self.cut = {n: p.detach().clone() for n, p in pl_module.named_parameters()}
        self.differences.append(pruned.output_difference)

    def on_before_zero_grad(self, trainer, pl_module, optimizer):
        self.rates.append([float(group["lr"]) for group in optimizer.param_groups])

    def on_train_epoch_end(self, trainer, pl_module):
        held = [id(p) for o in trainer.optimizers for g in o.param_groups for p in g["params"]]
        own = {id(p) for p in pl_module.parameters() if p.requires_grad}
        assert len(held) == len(set(held))
        assert own <= set(held)
        assert set(held) <= {id(p) for p in pl_module.parameters()}


def run(folder, module, extra=(), epochs=6, resetter=None, **options):
    """Train through masks and cut; check what every run must give."""
    witness = Witness()
    stages = [plain(ChannelMasker, start_epoch=1, end_epoch=4, mac_target=0.6), PhysicalPruner()]
    stages.append(resetter or OptimizerResetter(warmup_epochs=0))
    fit = trainer(folder, [*stages, witness, *extra], epochs, **options)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Consider|.*num_workers|.*log_every_n|.*bottleneck")
        fit.fit(module)
    assert stages[1].done
    widths = [part.out_channels for part in module.modules() if isinstance(part, nn.Conv2d)]
    assert min(widths) < WIDTH
    assert len(witness.differences) == 1
    assert witness.differences[0] < 1e-5
    for name, parameter in module.named_parameters():
        assert torch.isfinite(parameter).all()
        assert not torch.equal(parameter, witness.cut[name]), f"{name} does not move after the cut"
    return fit, witness


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.02, momentum=0.9, nesterov=True),
    "adamw": lambda p: torch.optim.AdamW(p, 1e-2, amsgrad=True),
    "adadelta": lambda p: torch.optim.Adadelta(p, 0.5),
    "adagrad": lambda p: torch.optim.Adagrad(p, 1e-2, initial_accumulator_value=0.1),
    "adafactor": lambda p: torch.optim.Adafactor(p, 1e-2),
    "adamax": lambda p: torch.optim.Adamax(p, 1e-2),
    "asgd": lambda p: torch.optim.ASGD(p, 1e-2),
    "lbfgs": lambda p: torch.optim.LBFGS(p, 0.01, max_iter=2),
    "nadam": lambda p: torch.optim.NAdam(p, 1e-2),
    "radam": lambda p: torch.optim.RAdam(p, 1e-2),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 1e-3, momentum=0.9, centered=True),
    "rprop": lambda p: torch.optim.Rprop(p, 1e-3),
    "foreach": lambda p: torch.optim.Adam(p, 1e-2, foreach=True),
    "fused": lambda p: torch.optim.SGD(p, 1e-2, momentum=0.9, fused=True),
    "rate as a tensor": lambda p: torch.optim.Adam(p, torch.tensor(1e-2)),
}


@pytest.mark.filterwarnings("ignore:.*starts again")
@pytest.mark.parametrize("clear", [True, False], ids=["cleared", "kept"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_trains_on(name, clear, tmp_path):
    resetter = OptimizerResetter(clear_statistics=clear, warmup_epochs=0)
    run(tmp_path, Tiny(OPTIMIZERS[name]), resetter=resetter, epochs=5)


SCHEDULES = {
    "step": lambda o: lr_scheduler.StepLR(o, 1, 0.5),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 12),
    "one cycle": lambda o: lr_scheduler.OneCycleLR(o, 0.05, total_steps=14),
    "cyclic": lambda o: lr_scheduler.CyclicLR(o, 1e-3, 0.05, step_size_up=2),
    "sequential": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.1), lr_scheduler.ExponentialLR(o, 0.9)], [2]
    ),
    "chained": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, 0.5, 2), lr_scheduler.ExponentialLR(o, 0.9)]
    ),
    "plateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=1),
    "swa": lambda o: torch.optim.swa_utils.SWALR(o, 0.01, anneal_epochs=3),
}


@pytest.mark.parametrize("restart", [True, False], ids=["restarted", "as it was"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_trains_on(name, restart, tmp_path):
    interval = "step" if name in ("one cycle", "cyclic", "cosine") else "epoch"
    module = Tiny(schedule=SCHEDULES[name], interval=interval)
    resetter = OptimizerResetter(restart_lr=restart, warmup_epochs=0, decay="constant")
    fit, witness = run(tmp_path, module, resetter=resetter)
    if not restart:
        return
    first = {"one cycle": 0.05, "cyclic": 1e-3}.get(name, 0.02)
    assert witness.rates[-4:] == [[pytest.approx(first)]] * 4
    if name in ("one cycle", "cyclic"):
        momentum = {"one cycle": 0.95, "cyclic": 0.9}[name]
        assert fit.optimizers[0].param_groups[0]["momentum"] == momentum


class AddGroup(pl.Callback):
    """Adds what the optimizer lacks, as users do by hand."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_epoch_start(self, trainer, pl_module):
        (optimizer,) = trainer.optimizers
        if trainer.current_epoch == self.epoch:
            pl_module.head.requires_grad_(True)
            optimizer.add_param_group({"params": list(pl_module.head.parameters()), "lr": 0.004})


class HeadLater(Tiny):
    def trained(self):
        self.head.requires_grad_(False)
        return list(self.backbone.parameters())


CALLBACKS = {
    "backbone thawed before": lambda: lit.BackboneFinetuning(1),
    "backbone thawed at the cut": lambda: lit.BackboneFinetuning(2),
    "backbone thawed after": lambda: lit.BackboneFinetuning(4),
    "batch size finder": lambda: lit.BatchSizeFinder("power", 1, init_val=8, max_trials=1),
    "learning rate finder": lambda: lit.LearningRateFinder(num_training_steps=5),
    "early stopping": lambda: lit.EarlyStopping("val_loss", patience=20),
    "accumulation": lambda: lit.GradientAccumulationScheduler({2: 2}),
    "lambda": lambda: lit.LambdaCallback(on_train_epoch_start=lambda *_: None),
    "device": lambda: lit.DeviceStatsMonitor(cpu_stats=False),
    "summary": lambda: lit.ModelSummary(2),
    "timer": lambda: lit.Timer("00:01:00:00"),
    "swa early": lambda: lit.StochasticWeightAveraging(0.01, 1),
    "swa late": lambda: lit.StochasticWeightAveraging(0.01, 4),
    "averaging": lambda: lit.WeightAveraging(),
    "ema": lambda: lit.EMAWeightAveraging(decay=0.9),
    "rates": lambda: lit.LearningRateMonitor(log_momentum=True),
    "progress": lambda: lit.RichProgressBar(),
}


@pytest.mark.filterwarnings("ignore:.*(already exist within another group|swa|SWA|Swapping)")
@pytest.mark.parametrize("name", CALLBACKS)
def test_every_callback_works_beside_the_stages(name, tmp_path):
    logger = CSVLogger(tmp_path) if name in ("device", "rates") else False
    options = {"enable_progress_bar": name == "progress", "log_every_n_steps": 1}
    run(tmp_path, Tiny(), [CALLBACKS[name]()], logger=logger, **options)


@pytest.mark.parametrize("epoch", [1, 4])
def test_a_group_that_joins_later_follows_the_restart(epoch, tmp_path):
    resetter = OptimizerResetter(warmup_epochs=0, decay="linear", final_lr=0.0)
    _, witness = run(tmp_path, HeadLater(), [AddGroup(epoch)], resetter=resetter)
    last = [row for row in witness.rates if len(row) == 2][-3:]
    assert len(last) == 3
    for (first, second), (first_next, second_next) in itertools.pairwise(last):
        assert second / first == pytest.approx(second_next / first_next)


class ByHand(Tiny):
    """Manual optimization with one optimizer for the matrices and another one for the rest."""

    def __init__(self, matrices):
        super().__init__()
        self.automatic_optimization, self.matrices = False, matrices
        self.table = nn.Embedding(10, WIDTH, sparse=matrices is torch.optim.SparseAdam)
        self.inner, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 3)
        self.backbone = nn.Identity()
        self.example_input_array = torch.zeros(1, 5, dtype=torch.int64)

    def forward(self, x):
        return self.head(torch.relu(self.inner(self.table(x).mean(1))))

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        for optimizer in self.optimizers():
            optimizer.zero_grad()
        self.manual_backward(loss)
        for optimizer in self.optimizers():
            optimizer.step()

    def configure_optimizers(self):
        first = [p for p in self.parameters() if p.ndim == 2]
        if self.matrices is torch.optim.SparseAdam:
            first = [self.table.weight]
        rest = [p for p in self.parameters() if not any(p is q for q in first)]
        return self.matrices(first, lr=0.02), torch.optim.AdamW(rest, 0.01)

    def data(self):
        words = torch.arange(16 * 5).view(16, 5) % 10
        return TensorDataset(words, torch.arange(16) % 3)


@pytest.mark.parametrize("matrices", [torch.optim.Muon, torch.optim.SparseAdam])
def test_several_optimizers_by_hand_train_on(matrices, tmp_path):
    module, witness = ByHand(matrices), Witness()
    stages = [plain(ChannelMasker, start_epoch=1, end_epoch=2, pruning_ratio=0.5), PhysicalPruner()]
    trainer(tmp_path, [*stages, OptimizerResetter(restart_lr=False), witness], 4).fit(module)
    assert module.inner.out_features < WIDTH
    assert witness.differences[0] < 1e-5
    for name, parameter in module.named_parameters():
        assert not torch.equal(parameter, witness.cut[name]), name


def test_lightnings_own_pruning_is_refused_beside_the_stages(tmp_path):
    stages = [plain(ChannelMasker, start_epoch=1, end_epoch=4, mac_target=0.6), PhysicalPruner()]
    fit = trainer(tmp_path, [*stages, lit.ModelPruning("l1_unstructured", amount=0.2)])
    with pytest.raises(ValueError, match="ModelPruning puts masks of its own"):
        fit.fit(Tiny())


def test_an_optimizer_is_not_rebuilt_beside_a_callback_that_adds_groups(tmp_path):
    stages = [PhysicalPruner(), OptimizerResetter(rebuild=True), lit.BackboneFinetuning(1)]
    with pytest.raises(ValueError, match="loses the parameter groups that BackboneFinetuning adds"):
        trainer(tmp_path, stages).fit(Tiny())


@pytest.mark.filterwarnings("ignore:.*default schedule will be overridden")
@pytest.mark.parametrize("profiler", ["simple", "advanced", "pytorch"])
def test_profiled_runs_cut(profiler, tmp_path):
    run(tmp_path, Tiny(), profiler=profiler)


class ThawsAgain(lit.BackboneFinetuning):
    """Lightning freezes the backbone again at a resume, and thaws it at its own epoch only."""

    def on_fit_start(self, trainer, pl_module):
        super().on_fit_start(trainer, pl_module)
        held = {id(p) for o in trainer.optimizers for g in o.param_groups for p in g["params"]}
        if all(id(p) in held for p in pl_module.parameters()):
            self.make_trainable(pl_module.backbone)


RESUMED = "ignore:.*(already exist within another group|callbacks used to create)"


def resume(folder, thawing, epoch, module):
    stages = [plain(ChannelMasker, start_epoch=1, end_epoch=4, mac_target=0.6), PhysicalPruner()]
    fit = trainer(folder, [*stages, OptimizerResetter(warmup_epochs=0), thawing], 6)
    fit.fit(module, ckpt_path=folder / f"epoch={epoch}.ckpt", weights_only=True)


@pytest.mark.filterwarnings(RESUMED)
@pytest.mark.parametrize(("thaw", "resumed"), [(1, 1), (1, 4), (4, 4), (4, 2)])
def test_thawed_runs_resume_as_if_never_stopped(thaw, resumed, tmp_path):
    files = lit.ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
    whole, again = Tiny(), Tiny()
    run(tmp_path, whole, [ThawsAgain(thaw), files], enable_checkpointing=True)
    resume(tmp_path, ThawsAgain(thaw), resumed, again)
    for (name, a), b in zip(whole.named_parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(a, b, msg=name)


@pytest.mark.filterwarnings(RESUMED)
def test_what_lightning_freezes_again_at_a_resume_is_named(tmp_path):
    files = lit.ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
    run(tmp_path, Tiny(), [lit.BackboneFinetuning(1), files], enable_checkpointing=True)
    with pytest.warns(UserWarning, match=r"2 parameters that are frozen \(backbone.0.weight"):
        resume(tmp_path, lit.BackboneFinetuning(1), 4, Tiny())


class OnlyTheBackbone(HeadLater):
    """Makes an optimizer of the backbone alone, at the cut too."""

    def trained(self):
        return list(self.backbone.parameters())


@pytest.mark.parametrize("restart", [True, False])
def test_a_rebuilt_optimizer_keeps_groups_that_were_added(restart, tmp_path):
    module = OnlyTheBackbone(schedule=lambda o: lr_scheduler.StepLR(o, 1, 0.9))
    module.head.requires_grad_(False)
    resetter = OptimizerResetter(rebuild=True, restart_lr=restart, warmup_epochs=0)
    with pytest.warns(UserWarning, match="leaves out 2 parameters that were trained"):
        fit, _ = run(tmp_path, module, [AddGroup(0)], resetter=resetter)
    assert len(fit.optimizers[0].param_groups) == 2


def test_the_tuner_leaves_the_stages_as_they_were(tmp_path):
    module, witness = Tiny(), Witness()
    stages = [plain(ChannelMasker, start_epoch=1, end_epoch=4, mac_target=0.6), PhysicalPruner()]
    fit = trainer(tmp_path, [*stages, OptimizerResetter(), witness], 5)
    found = Tuner(fit).lr_find(module, num_training=5)
    assert len(found.results["lr"]) > 2
    assert fit.global_step == 0
    fit.fit(module)
    assert len(witness.differences) == 1
    assert fit.global_step == 5 * 2
    assert min(p.out_channels for p in module.modules() if isinstance(p, nn.Conv2d)) < WIDTH
