"""Kill trainings with SIGKILL at random moments and compare their ends with undisturbed ones.

    python benchmarks/faults.py --recipes channel sequential_activation --kills 20 --seed 0

Prints a table and writes it as JSON. For each recipe the command that a user gives, ``python
train.py +pruning=RECIPE``, runs once undisturbed. Then it runs in a folder of the same name, is
killed, continues with ``python train.py resume=FOLDER``, and so on. The kills are spread over the
run by rows of ``metrics.csv``, so that every restart gets further than the one before, and come

- ``moment``: a random time after a row;
- ``save``: after a row, while a checkpoint is being written;
- ``replaced``: after a row, when a checkpoint has just taken the place of the old one;
- ``start``: while the process starts and takes up the run.

At the end both folders must hold the same files with the same content, bit by bit: weights,
averaged weights, optimizers, schedules, states of callbacks, counters, random states, the report,
the result, and every row of metrics. Latency is not measured, and the folder has the same path in
both runs, so no time and no path is left out. Only ``config.yaml`` may say that it was resumed.

What a kill met is read from what it left: a part file of a checkpoint, or a digest file with two
lines, was left during a save; a checkpoint that knows a row which ``metrics.csv`` lacks was left
between the two.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fault_harness import Process, compare_runs, disturbed, plan_kills, summary, undisturbed

HERE = Path(__file__).resolve().parent

# Two dense epochs, six from the first mask to the end.
SHORT = [
    "dense_epochs=2",
    "recovery_epochs=6",
    "trainer.accelerator=cpu",
    "trainer.num_sanity_val_steps=0",
    # A file within the epochs too.
    "+callbacks.often={_target_:lightning.pytorch.callbacks.ModelCheckpoint,"
    "dirpath:'${output_dir}/checkpoints',filename:often,every_n_train_steps:3,"
    "enable_version_counter:false}",
]
# Four batches of small pictures an epoch.
SMALL_DETECTION = [
    "data.train_images=32",
    "data.val_images=8",
    "data.test_images=8",
    "data.image_size=64",
    "data.batch_size=8",
    "data.mosaic=0.5",
    "data.close_mosaic=1",
]
# Four batches of a small movie an epoch, seven cells.
SMALL_NEURAL = [
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
]
NO_COST = ["pruning.report.latency_rounds=0", "pruning.report.figures=false"]
BY_RATIO = [
    "pruning.masker.layers=[network.backbone.p5.*]",
    "pruning.masker.mac_target=null",
    "pruning.masker.pruning_ratio=0.5",
]
BY_CLASS = [
    "pruning.masker.layers=[network.backbone.p5.*]",
    "pruning.masker.mac_target=null",
    # After a few steps no object is found yet.
    "pruning.masker.matching=all",
    "pruning.masker.clusterer.embedding=pca",
    "pruning.masker.layers_per_step=3",
    "pruning.masker.hold_epochs=1",
]
RECIPES = {
    "sequential_activation": BY_CLASS,
    "separability": BY_CLASS,
    "compress": [*BY_RATIO, "pruning.label_free_steps.steps=4"],
    "channel": BY_RATIO,
    "bn_scale": BY_RATIO,
    "magnitude": BY_RATIO,
    "slice": [],
    "channel_and_slice": BY_RATIO,
    "channel_reset": [
        "pruning.channel_resetter.every_n_epochs=2",
        "pruning.channel_resetter.end_epoch=null",
        "pruning.channel_resetter.reset_type=original",
        "pruning.channel_resetter.min_batches=3",
        # No channel of so small a run is dead: weak ones are reset.
        "pruning.channel_resetter.threshold=0.3",
    ],
    "neural": [
        "pruning.masker.layers=[network.modulator.gru.*,network.convnet.blocks.1.*]",
        "pruning.masker.mac_target=null",
        "pruning.masker.pruning_ratio=0.5",
        "pruning.masker.compensate_images=16",
        "pruning.masker.gradient_images=32",
    ],
}


class TrainingCommand:
    """Start ``train.py`` in a folder, or let it continue there.

    Args:
        words: Overrides of the first start.
        log: File to which all output is appended.
    """

    def __init__(self, words: Sequence[str], log: Path) -> None:
        self.words, self.log = list(words), log

    def __call__(self, folder: Path) -> Process:
        """Start the process."""
        begun = (folder / ".hydra" / "overrides.yaml").exists()
        words = [f"resume={folder}"] if begun else [*self.words, f"hydra.run.dir={folder}"]
        command = [sys.executable, str(HERE.parent / "train.py"), *words]
        environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "PYTHONHASHSEED": "0",
            "TQDM_DISABLE": "1",
        }
        with self.log.open("a") as log:
            print(">", *words, file=log, flush=True)
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
            )


def measure(recipe: str, kills: int, seed: int, work: Path) -> dict[str, Any]:
    """Run a recipe undisturbed and killed; return the row of the table."""
    small = SMALL_NEURAL if recipe == "neural" else SMALL_DETECTION
    words = [f"+pruning={recipe}", *small, *SHORT, *NO_COST, *RECIPES[recipe]]
    work.mkdir(parents=True)
    launch = TrainingCommand(words, work / "output.log")
    whole = undisturbed(launch, work / "run")
    begin = time.monotonic()
    remains = []
    try:
        for left in disturbed(launch, work / "run", plan_kills(kills, seed, whole)):
            remains.append(left)
        different = compare_runs(whole.folder, work / "run")
    except RuntimeError as error:
        different = [f"{error}: {work / 'output.log'}"]
    return {
        "recipe": recipe,
        "seed": seed,
        "rows": whole.rows,
        **summary(remains),
        "differences": different,
        "seconds": {"undisturbed": whole.seconds, "killed": time.monotonic() - begin},
        "remains": [asdict(one) for one in remains],
    }


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipes", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--kills", type=int, default=20, help="of each recipe")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--work", type=Path, help="a folder for the runs, which stay there")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "faults.json")
    parser.add_argument("--quick", action="store_true", help="one recipe, two kills")
    args = parser.parse_args()
    if args.quick:
        args.recipes, args.kills = ["magnitude"], 2
    return args


def main() -> None:
    """Run, print and write the benchmark; exit with 1 where a run ended differently."""
    args = arguments()
    rows = []
    print(
        "recipe                 kills  in a save  before a row  starting  from zero  torn  differ"
    )
    with tempfile.TemporaryDirectory() as temporary:
        for recipe in args.recipes:
            work = (args.work or Path(temporary)).resolve() / f"{recipe}_{args.seed}"
            rows.append(row := measure(recipe, args.kills, args.seed, work))
            print(
                f"{recipe:23s}{row['kills']:5d}{row['during_a_save']:11d}{row['before_a_row']:14d}"
                f"{row['while_starting']:10d}{row['from_nothing']:11d}{row['torn']:6d}"
                f"{len(row['differences']):8d}",
                flush=True,
            )
            for line in row["differences"][:10]:
                print(f"    {line}", flush=True)
    result = {
        "rows": rows,
        "threads": 1,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "versions": {name: version(name) for name in ("torch", "lightning", "numpy")},
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written to {args.output}")
    sys.exit(any(row["differences"] or row["torn"] for row in rows))


if __name__ == "__main__":
    main()
