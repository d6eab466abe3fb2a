"""Say whether two versions of the project give the same results, bit by bit, from the same seeds.

    python benchmarks/same_results.py record before.json        (in one checkout)
    python benchmarks/same_results.py record after.json         (in the other)
    python benchmarks/same_results.py compare before.json after.json --renamed knee=bend

``record`` makes small runs, each in a process of its own with one thread, on one machine:

- ``digits_RECIPE``: every recipe of ``conf/pruning`` on a YOLOv8n and digits, as users start it:
  ``python train.py +pruning=RECIPE``; ``neural`` on a small model of simulated cells too;
- ``classifier``: stages in Python, around a small network: every masker, every criterion;
- ``plain_loop``: ``Pruning`` in loops without Lightning, configured by ``pruning_config.json``.

The file that it writes holds digests of every tensor of models and optimizers after every epoch and
in every checkpoint, which channels were kept, the rows of metrics, the reports, and what a plain
loop logs. Times, places, versions and the states of callbacks are left out.

``compare`` prints what differs and exits with 1 where anything does: one line for each kind of
value in each file, with how many differ and the first. Only what is meant to stay is named here:
arguments of the command line, public names of the package, keys of ``pruning_config.json``. They
stand in the tables below: where a later version calls one otherwise, it is changed there.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from result_digests import Difference, differences, digest_folder, rename, write_record
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import lightning_prune as lp
from lightning_prune.loop import Pruning

HERE = Path(__file__).resolve().parent
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
}

# --- what may be called otherwise one day -------------------------------------------------------

# Two dense epochs, three from the first mask to the end, and a record of each.
SHORT = [
    "dense_epochs=2",
    "recovery_epochs=3",
    "trainer.accelerator=cpu",
    "trainer.num_sanity_val_steps=0",
    "+callbacks.recorder={_target_:same_results.Recorder,folder:'${output_dir}'}",
    "pruning.report.latency_rounds=0",
    "pruning.report.figures=false",
]
# Two batches of small pictures an epoch.
DIGITS = [
    "data.train_images=16",
    "data.val_images=8",
    "data.test_images=8",
    "data.image_size=64",
    "data.batch_size=8",
    "data.mosaic=0.5",
    "data.close_mosaic=1",
]
# Two batches of a small movie an epoch, seven cells.
CELLS = [
    "data=simulated_cells",
    "model=learned_res_optimized_gru_small",
    "monitor=val/bps",
    "data.cells=[4,3]",
    "data.pixels=15",
    "data.trials=5",
    "data.repeated_trials=1",
    "data.repeats=2",
    "data.trial_seconds=0.6",
    "data.photos=2",
    "data.batch_size=64",
    "data.stride=2",
]
# No channel of so small a run is dead: weak ones are reset.
RESET = [
    "pruning.channel_resetter.every_n_epochs=1",
    "pruning.channel_resetter.min_batches=1",
    "pruning.channel_resetter.threshold=0.3",
]
BY_CLASS = [
    "pruning.masker.layers=[network.backbone.p5.*]",
    "pruning.masker.mac_target=0.95",
    "pruning.masker.matching=all",  # after a few steps no object is found yet
    "pruning.masker.layers_per_step=4",
    "pruning.masker.epochs_per_step=1",
    "pruning.masker.hold_epochs=0",
]
RECIPES = {
    "bn_scale": [],
    "channel": [],
    "channel_and_slice": [],
    "compress": ["pruning.label_free_steps.steps=3", "pruning.masker.gradient_images=8"],
    "channel_reset": [*RESET, "pruning.channel_resetter.end_epoch=null"],
    "magnitude": [],
    "neural": ["pruning.masker.gradient_images=8", "pruning.masker.compensate_images=16"],
    "separability": BY_CLASS,
    "sequential_activation": BY_CLASS,
    "slice": [],
    "[channel,channel_reset]": RESET,
}


def commands() -> dict[str, list[str]]:
    """Return the arguments of ``train.py``, by the name of the run."""
    runs = {
        f"digits_{recipe.strip('[]').replace(',', '_with_')}": (recipe, [*DIGITS, *words])
        for recipe, words in RECIPES.items()
    }
    runs["cells_neural"] = ("neural", [*CELLS, "pruning.masker.gradient_images=32"])
    return {name: [f"+pruning={recipe}", *SHORT, *words] for name, (recipe, words) in runs.items()}


# What the digests were made with, said here so that no default changes them.
FREE: dict[str, Any] = {"mac_target": None, "round_to": 1, "fast_widths": None}


def _masker(**arguments: Any) -> list[Callback]:
    """Mask by a criterion from epoch 1 to 3, cut one epoch later."""
    steps = {"start_epoch": 1, "end_epoch": 4, "pruning_ratio": 0.6, "hold_epochs": 1}
    images = {"recalibrate_images": 0, "compensate_images": 0, "gradient_images": 64}
    chosen = FREE | {"ranking": "global"} | images | steps | arguments
    return [lp.ChannelMasker(**chosen), *_cut()]


def _sequential(mac_target: float | None, **arguments: Any) -> lp.SequentialActivationMasker:
    chosen = FREE | {"keep_range": (0.25, 0.5), "layers_per_step": None, "images": 512}
    chosen["compensate_images"] = 0
    return lp.SequentialActivationMasker(1, **chosen | {"mac_target": mac_target} | arguments)


def _cut(recalibrate_images: int = 0, **arguments: Any) -> list[Callback]:
    resetter = lp.OptimizerResetter(restart_at="cut", **arguments)
    return [lp.PhysicalPruner(recalibrate_images=recalibrate_images), resetter]


STAGES: dict[str, Callable[[], list[Callback]]] = {
    "group_norm": lambda: [
        lp.ChannelRegularizer(reg=0.05, mac_reg=0.01, penalty=lp.GroupNormPenalty()),
        *_masker(pruning_ratio=1.0, mac_target=0.4, criterion=lp.GroupNorm()),
    ],
    "bn_scale": lambda: [
        lp.ChannelRegularizer(reg=0.05, penalty=lp.BNScalePenalty(group_lasso=True)),
        *_masker(criterion=lp.BNScale(), ranking="local", round_to=4),
    ],
    "fisher": lambda: _masker(
        criterion=lp.Fisher(), ranking="isomorphic", recalibrate_images=32, compensate_images=32
    ),
    "taylor": lambda: _masker(criterion=lp.Taylor(), recalibrate_images=32),
    "fpgm": lambda: _masker(
        criterion=lp.FPGM(), ranking="local", mac_target=0.5, fast_widths=lp.FastWidths(vector=4)
    ),
    "lamp": lambda: _masker(criterion=lp.LAMP(), keep_range=(0.5, 1.0)),
    "mac_aware": lambda: _masker(criterion=lp.MacAware(), layers=["net.inner.*", "net.deep.*"]),
    "mac_aware_product": lambda: _masker(criterion=lp.MacAware(lp.Magnitude(2), "mul")),
    "magnitude": lambda: _masker(criterion=lp.Magnitude(), end_epoch=2, hold_epochs=0),
    "random": lambda: _masker(criterion=lp.RandomChoice(seed=3)),
    "sequential_knees": lambda: [
        _sequential(None, matching="all", layers_per_step=2),
        *_cut(recalibrate_images=32, rebuild=True),
    ],
    "sequential_target": lambda: [
        _sequential(0.5, keep_range=None, criterion=lp.Separability()),
        *_cut(clear_statistics=False),
    ],
    "slice": lambda: [
        lp.SliceRegularizer(reg=1e-3, block_size=4, layers=["net.*.0"]),
        lp.SliceMasker(block_size=4, start_epoch=1, end_epoch=4, layers=["net.*.0"]),
    ],
    "channel_then_slice": lambda: [
        *_masker(end_epoch=2, round_to=4),
        lp.SliceMasker(block_size=4, start_epoch=1, end_epoch=5, norm=1, layers=["net.*.0"]),
    ],
    "reset": lambda: [
        lp.ChannelResetter(every_n_epochs=2, threshold=0.4, reset_type="original", min_batches=1)
    ],
    "reset_all": lambda: [
        lp.ChannelResetter(every_n_epochs=2, which="all", min_batches=1),
        *_masker(start_epoch=3, end_epoch=4),
    ],
}

CHANNEL = {
    "is_prune": True,
    "start_epoch": 1,
    "end_epoch": 4,
    "global_prune_rate": 0.5,
    "input_shape": [1, 1, 8, 8],
    "regularize": {"reg": 0.01, "mac_reg": 0.001},
}
SLICE = {
    "is_prune": True,
    "block_size": 2,
    "start_epoch": 1,
    "end_epoch": 5,
    "prune_rate": 0.5,
    "reg": 1e-4,
    "layers": ["*.0"],
}
OFF = {"is_prune": False}
LOOPS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "channel_and_slice": (CHANNEL | {"block_size": 2}, SLICE),
    "mac_target": (CHANNEL | {"global_prune_rate": 1.0, "mac_target": 0.5}, OFF),
    "bn_scale": (CHANNEL | {"pruning_method": "BNScalePruner", "global_pruning": False}, OFF),
    "mac_aware": (CHANNEL | {"pruning_method": "MACAwareImportance", "isomorphic": True}, OFF),
    "taylor": (CHANNEL | {"pruning_method": "TaylorImportance"}, OFF),
    "at_init": (CHANNEL | {"prune_channels_at_init": True, "fast_widths": {"vector": 4}}, OFF),
    "slice": (OFF, SLICE | {"pruning_gradually": False, "pruning_method": "L1_norm"}),
}

# --- the runs in Python -------------------------------------------------------------------------


class Recorder(Callback):
    """Write digests after every epoch, and which channels a cut keeps.

    Args:
        folder: Folder of the run.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Digest what the epoch ends with."""
        states = [optimizer.state_dict() for optimizer in trainer.optimizers]
        content = {"state_dict": pl_module.state_dict(), "optimizer_states": states}
        write_record(self.folder, f"epoch_{trainer.current_epoch}", content)

    def on_channels_pruned(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, pruned: Any
    ) -> None:
        """Write the plan that was cut."""
        keep = {name: kept.tolist() for name, kept in pruned.plan.keep.items()}
        write_record(self.folder, f"plan_{trainer.current_epoch}", {"keep": keep})


def conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Return a convolution, its norm and a ReLU."""
    layer = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU())


class Net(nn.Module):
    """Stem, residual block, deep layer, head; widths that slices and rounding divide."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(1, 16)
        self.inner, self.outer = conv(16, 24), conv(24, 16)
        self.deep = conv(16, 32, stride=2)
        self.head = nn.Linear(32, 4)

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 1, 8, 8) to scores (B, 4)."""
        x = self.stem(images)
        x = x + self.outer(self.inner(x))
        return self.head(self.deep(x).mean((2, 3)))


def patterns(count: int, seed: int) -> TensorDataset:
    """Return noisy images of one fixed pattern a class."""
    means = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(42))
    noise = torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    label = torch.arange(count) % 4
    return TensorDataset(means[label] + 0.7 * noise, label)


class Classifier(pl.LightningModule):
    """A classifier with a schedule, that knows nothing of pruning."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()
        self.example_input_array = torch.zeros(1, 1, 8, 8)

    def forward(self, images: Tensor) -> Tensor:
        """Return the scores."""
        return self.net(images)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss."""
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.log("train/loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Log the loss, in which the last bit of a weight shows."""
        self.log("val/loss", F.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        """Return AdamW with a rate that falls."""
        optimizer = torch.optim.AdamW(self.parameters(), 3e-3, weight_decay=0.1)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.9)]

    def train_dataloader(self) -> DataLoader[Any]:
        """Return shuffled batches."""
        return DataLoader(patterns(64, 1), batch_size=16, shuffle=True)

    def collection_dataloader(self) -> DataLoader[Any]:
        """Return the same images in order, from which activations are read."""
        return DataLoader(patterns(64, 1), batch_size=32)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return other images."""
        return DataLoader(patterns(32, 2), batch_size=32)


def classifier(folder: Path) -> None:
    """Train the classifier with each list of stages, in a folder of its own."""
    for name, stages in STAGES.items():
        pl.seed_everything(0, verbose=False)
        own = folder / name
        last = ModelCheckpoint(own, "last", save_on_train_epoch_end=True)
        report = lp.PruningReport(str(own), latency_rounds=0, show=False, figures=False)
        trainer = pl.Trainer(
            max_epochs=7,
            accelerator="cpu",
            devices=1,
            callbacks=[*stages(), report, Recorder(own), last],
            logger=CSVLogger(own),
            log_every_n_steps=1,
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=own,
        )
        trainer.fit(Classifier())


def plain_loop(folder: Path) -> None:
    """Train the same network in a plain loop with each configuration, in a folder of its own."""
    for name, (channel, slices) in LOOPS.items():
        own = folder / name
        own.mkdir(parents=True)
        content = {"channel_sparsity_args": channel, "slice_sparsity_args": slices}
        (own / "pruning_config.json").write_text(json.dumps(content))
        _loop(own)


def _loop(folder: Path) -> None:
    torch.manual_seed(0)
    model = Net()
    pruner = Pruning(model, folder, model.forward)
    optimizer = torch.optim.SGD(model.parameters(), 0.02, momentum=0.9, weight_decay=1e-3)
    images, labels = patterns(32, 1).tensors
    lines: list[str] = []
    for epoch in range(7):
        pruner.prune(model, epoch, lines.append, optimizer)
        for some in torch.randperm(32).split(8):
            loss = F.cross_entropy(model(images[some]), labels[some])
            loss = loss + pruner.slice_regularize(model)
            optimizer.zero_grad()
            loss.backward()
            pruner.channel_regularize(model)
            optimizer.step()
        content = {"state_dict": model.state_dict(), "optimizer_states": [optimizer.state_dict()]}
        write_record(folder, f"epoch_{epoch}", {**content, "pruning": pruner.state_dict()})
    write_record(folder, "log", {"lines": lines})


IN_PYTHON = {"classifier": classifier, "plain_loop": plain_loop}

# --- the commands -------------------------------------------------------------------------------


def record(names: Sequence[str]) -> dict[str, Any]:
    """Make runs, each in a process of its own, and return their digests.

    Raises:
        RuntimeError: a run fails.
    """
    runs, seconds = {}, {}
    for name in names:
        with tempfile.TemporaryDirectory() as temporary:
            folder, begin = Path(temporary) / "run", time.monotonic()
            _start(name, folder)
            seconds[name] = round(time.monotonic() - begin, 1)
            runs[name] = digest_folder(folder)
        print(f"{name:40s}{seconds[name]:7.1f} s{len(runs[name]):6d} files", flush=True)
    made_with = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "versions": {name: version(name) for name in ("torch", "lightning", "numpy", "numba")},
    }
    return {"runs": runs, "seconds": seconds, "made_with": made_with}


def _start(name: str, folder: Path) -> None:
    words = [str(HERE / "same_results.py"), "run", name, str(folder)]
    if name not in IN_PYTHON:
        words = [str(HERE.parent / "train.py"), *commands()[name], f"hydra.run.dir={folder}"]
    # This checkout's package, whichever is installed.
    paths = os.pathsep.join([str(HERE.parent), str(HERE)])
    settings = {**ONE_THREAD, "PYTHONHASHSEED": "0", "TQDM_DISABLE": "1", "PYTHONPATH": paths}
    run = subprocess.run(
        [sys.executable, *words],
        env=os.environ | settings,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if run.returncode:
        raise RuntimeError(f"{name} ended with {run.returncode}:\n{run.stdout[-3000:]}")


def compare(
    before: Path, after: Path, only: Sequence[str], renamed: Sequence[str]
) -> list[Difference]:
    """Print what differs between two files of digests, and return it."""
    ours, theirs = (json.loads(path.read_text()) for path in (before, after))
    if ours["made_with"] != theirs["made_with"]:
        print(f"made with {ours['made_with']} and with {theirs['made_with']}")
    names = dict(pair.split("=", 1) for pair in renamed)
    runs = [name for name in ours["runs"] | theirs["runs"] if name in only or not only]
    if not runs:
        sys.exit("nothing to compare: neither file has such a run")
    left, right = (
        {name: side["runs"][name] for name in runs if name in side["runs"]}
        for side in (ours, theirs)
    )
    found = differences(rename(left, names), right)
    for one in found:
        print(f"{one.run:34s}{one.file:36s}{one.item:36s}{one.count:6d}")
        print(f"    {one.first}: {_short(one.before)} -> {_short(one.after)}")
    total = f"{len(found)} kinds of values differ" if found else "everything is the same"
    print(f"{len(runs)} runs: {total}")
    return found


def _short(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:97]}..."


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    todo = parser.add_subparsers(dest="todo", required=True)
    names = [*commands(), *IN_PYTHON]
    only = argparse.ArgumentParser(add_help=False)
    only.add_argument(
        "--only", nargs="+", choices=names, default=[], metavar="NAME", help=", ".join(names)
    )
    one = todo.add_parser("record", parents=[only], help="make the runs and write their digests")
    one.add_argument("output", type=Path)
    one = todo.add_parser(
        "compare", parents=[only], help="print what differs; exit with 1 where anything does"
    )
    one.add_argument("before", type=Path)
    one.add_argument("after", type=Path)
    one.add_argument(
        "--renamed",
        nargs="+",
        default=[],
        metavar="OLD=NEW",
        help="keys of reports and columns of metrics that have other names in AFTER",
    )
    one = todo.add_parser("run", help="make one of the runs in Python, here, and keep its files")
    one.add_argument("name", choices=list(IN_PYTHON))
    one.add_argument("folder", type=Path)
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    """Do what the command line says."""
    args = arguments(words)
    if args.todo == "run":
        IN_PYTHON[args.name](args.folder)
    elif args.todo == "record":
        content = record(args.only or [*commands(), *IN_PYTHON])
        args.output.write_text(json.dumps(content, indent=1) + "\n")
        print(f"written to {args.output}")
    else:
        sys.exit(bool(compare(args.before, args.after, args.only, args.renamed)))


if __name__ == "__main__":
    main()
