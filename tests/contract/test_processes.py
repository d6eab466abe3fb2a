"""Two processes prune as one does, and continue together."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy

from lightning_prune.callbacks.stage import PruningStage
from lightning_prune.surgery.architecture import RECORD
from tests.contract.distributed import PLAIN_MODULES, RANKS, RESUMED, fit
from tests.contract.registry import EPOCHS, MODULES, RECIPES, Classifier, stages
from tests.contract.runs import QUIET, differences

REPOSITORY = Path(__file__).resolve().parents[2]
# One launch takes two processes and six seconds for each to start.
DEFAULT = "ddp", "channel"


def launches(*strategies: str) -> Any:
    """Parametrize with the recipes under these strategies."""
    pairs = [
        pytest.param(
            strategy,
            recipe,
            module,
            marks=[] if (strategy, recipe) == DEFAULT else pytest.mark.slow,
            id=f"{recipe}-{module}-{strategy}",
        )
        for strategy in strategies
        for module in PLAIN_MODULES
        for recipe in RECIPES
        if recipe not in MODULES[module].without
    ]
    return pytest.mark.parametrize(("strategy", "recipe", "module"), pairs, indirect=True)


each_launch = launches("ddp", "ddp_spawn")
each_ddp = launches("ddp")
each_spawn = launches("ddp_spawn")
pytestmark = [*QUIET, pytest.mark.filterwarnings("ignore:Found .* in eval mode")]


@dataclass(frozen=True)
class Launch:
    """What two processes left behind."""

    recipe: str
    module: str
    folder: Path

    @property
    def kind(self) -> type[Classifier]:
        return MODULES[self.module].make

    def ranks(self, run: str) -> list[dict[str, Any]]:
        files = [self.folder / run / f"rank{rank}.pt" for rank in range(RANKS)]
        return [torch.load(file, weights_only=True) for file in files]


@pytest.fixture(scope="module")
def strategy(request):
    return request.param


@pytest.fixture(scope="module")
def recipe(request):
    return request.param


@pytest.fixture(scope="module")
def module(request):
    return request.param


@pytest.fixture(scope="module")
def launch(strategy, recipe, module, tmp_path_factory):
    folder = tmp_path_factory.mktemp(f"{recipe}-{module}-{strategy}")
    words = [str(folder), recipe, strategy, module]
    command = [sys.executable, "-m", "tests.contract.distributed", *words]
    # Lightning's own launcher starts the other processes, at a free port.
    others = ("PL_", "LOCAL_", "NODE_", "MASTER_", "WORLD_")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(others)}
    done = subprocess.run(
        command,
        cwd=REPOSITORY,
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=580,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    return Launch(recipe, module, folder)


@pytest.fixture(scope="module")
def alone(launch, tmp_path_factory):
    """One process, with batches as large as those of both ranks together."""
    folder = tmp_path_factory.mktemp("alone")
    fit(folder / "plain", launch.recipe, launch.module, plain=True)
    return torch.load(folder / "plain" / "rank0.pt", weights_only=True)


def assert_near(ours: Any, theirs: Any, place: str = "") -> None:
    """Compare two nests; floating-point numbers need only be near."""
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), place
        for key, value in ours.items():
            assert_near(value, theirs[key], f"{place}/{key}")
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs), place
        for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            assert_near(a, b, f"{place}/{index}")
    elif isinstance(ours, torch.Tensor) and ours.is_floating_point():
        # Sums in another order differ by rounding: below 1e-15 over a whole run in double
        # precision (measured), and Adam may enlarge it where a gradient is small. Averages are
        # kept in single precision.
        double = ours.dtype == torch.float64
        tolerance = {"rtol": 1e-10, "atol": 1e-12} if double else {"rtol": 1e-6, "atol": 1e-7}
        torch.testing.assert_close(ours, theirs, **tolerance, msg=lambda text: f"{place}: {text}")
    elif isinstance(ours, float):
        assert ours == pytest.approx(theirs, rel=1e-9, abs=1e-12), place
    else:
        assert not differences(ours, theirs, place)


# --- two processes ------------------------------------------------------------------------------


@pytest.mark.contract("two processes: plan, masks, weights and optimizer are the same on each")
@each_launch
@pytest.mark.parametrize("run", ["whole", "plain"])
def test_both_ranks_go_through_the_same(launch, run):
    """Plans, masks, weights, averages and optimizers: after every epoch and at the cut."""
    first, second = launch.ranks(run)
    assert first["ranks"] == second["ranks"] == RANKS
    assert list(first["epochs"]) == list(range(EPOCHS))
    assert not differences(first["epochs"], second["epochs"])
    assert not differences(first["cut"], second["cut"])
    assert not torch.equal(first["random"], second["random"])  # each drops units of its own


@pytest.mark.contract("two processes: gradients are averaged before, under and after masks")
@each_launch
def test_gradients_are_averaged_at_every_step(launch):
    """Oracle: the mean of what each rank's share gives; before, under and after masks."""
    if RECIPES[launch.recipe].second_loss:
        pytest.skip("the oracle knows the module's loss; two processes train as one, see below")
    first, second = launch.ranks("whole")
    places = [f"{epoch}.{batch}" for epoch in range(EPOCHS) for batch in range(4)]
    assert list(first["batches"]) == list(second["batches"]) == places
    for place in places:
        one, other = first["batches"][place], second["batches"][place]
        assert not differences(one["averaged"], other["averaged"]), place
        assert differences(one["alone"], other["alone"]), place  # the shares differ
        mean = {name: (grad + other["alone"][name]) / 2 for name, grad in one["alone"].items()}
        for name, grad in one["averaged"].items():
            torch.testing.assert_close(grad, mean[name], rtol=1e-5, atol=1e-8)


@pytest.mark.contract("two processes: training continues after the cut")
@each_launch
def test_training_goes_on_after_the_cut(launch):
    still = MODULES[launch.module].still
    for rank in launch.ranks("whole"):
        assert rank["trained"]
        last = rank["epochs"][EPOCHS - 1]["parameters"]
        if RECIPES[launch.recipe].cuts:
            assert 4 <= 4 * rank["cut"]["epoch"] < 22  # the moments of RESUMED lie around it
            before = rank["cut"]["parameters"]
        else:
            assert rank["cut"] is None
            before = rank["epochs"][EPOCHS - 2]["parameters"]
        for name, value in last.items():
            # Slices stay at zero.
            moved = (value != before[name])[value != 0]
            assert bool(moved.any() if name in still else moved.all()), name
        assert sum(int(value.count_nonzero()) for value in last.values()) > 1000


@pytest.mark.contract("two processes decide and train as one with the same batches")
@each_launch
def test_two_processes_decide_and_train_as_one(launch, alone):
    """Oracle: one process with the batches of both, in arithmetic that does not see the split."""
    if RECIPES[launch.recipe].by_batch:
        pytest.skip("Fisher sums squares batch by batch, and two processes make other batches")
    two = launch.ranks("plain")[0]
    assert two["batches"].keys() == alone["batches"].keys()
    for place, gradients in two["batches"].items():
        assert_near(gradients["averaged"], alone["batches"][place]["averaged"], place)
    assert_near(two["cut"], alone["cut"], "cut")
    assert_near(two["epochs"], alone["epochs"])


@pytest.mark.contract("two processes: a resumed run equals the uninterrupted one")
@each_ddp
@pytest.mark.parametrize("batches", RESUMED)
def test_a_resumed_run_equals_the_uninterrupted_one(launch, batches):
    """On both ranks, bit by bit: also what each keeps for itself."""
    epoch, batch = divmod(batches, 4)
    resumed_ranks = launch.ranks(f"from_{batches}")
    for whole, resumed in zip(launch.ranks("whole"), resumed_ranks, strict=True):
        for part, first in (("batches", f"{epoch}.{batch}"), ("epochs", epoch)):
            assert next(iter(resumed[part])) == first
            rest = {key: whole[part][key] for key in resumed[part]}
            assert not differences(rest, resumed[part], part)
        if resumed["cut"] is not None:
            assert not differences(whole["cut"], resumed["cut"])
        assert torch.equal(whole["random"], resumed["random"])


# --- what is left -------------------------------------------------------------------------------


@pytest.mark.contract("two processes: files and report of rank 0 stand alone")
@each_launch
def test_files_of_rank_0_load_alone(launch):
    cuts, folder = RECIPES[launch.recipe].cuts, launch.folder / "whole"
    rank = launch.ranks("whole")[0]
    last = torch.load(folder / "epochs" / f"{EPOCHS - 1}.ckpt", weights_only=True)
    end = rank["epochs"][EPOCHS - 1]
    assert (RECORD in last["state_dict"]) == cuts
    # The file holds the average as the model, and the model beside it.
    loaded = launch.kind.load_from_checkpoint(folder / "epochs" / f"{EPOCHS - 1}.ckpt")
    assert not differences(dict(loaded.named_parameters()), end["average"])
    for name, value in end["parameters"].items():
        assert torch.equal(last["current_model_state"][name], value)
    assert not differences(last["optimizer_states"][0], end["optimizer"])

    report = json.loads((folder / "pruning_report.json").read_text())
    assert bool(report["slices"]) == ("slice" in launch.recipe)
    if cuts:
        # A head is several rows of a layer.
        before = rank["cut"]["channels"]
        rows = {
            row["group"]: row["channels_before"] // before[row["group"]] for row in report["layers"]
        }
        assert all(count == 1 or name.endswith("qkv") for name, count in rows.items())
        after = {row["group"]: row["channels_after"] for row in report["layers"]}
        kept = rank["cut"]["keep"]
        assert after == {name: len(keep) * rows[name] for name, keep in kept.items()}
        best = launch.kind.load_from_checkpoint(folder / "checkpoints" / "best_pruned.ckpt")
        assert [p.shape for p in best.parameters()] == [p.shape for p in loaded.parameters()]
        dense = launch.kind()
        assert [p.shape for p in dense.parameters()] != [p.shape for p in loaded.parameters()]
        weights = torch.load(folder / "checkpoints" / "dense.ckpt", weights_only=True)
        assert not dense.load_state_dict(weights["state_dict"]).missing_keys


@pytest.mark.contract("ddp_spawn leaves the cut model in the calling process")
@each_spawn
def test_the_module_of_the_calling_process_is_cut(launch):
    """Oracle: the average that rank 0 ended with, which training leaves in the module."""
    after = torch.load(launch.folder / "whole" / "after.pt", weights_only=True)
    end = launch.ranks("whole")[0]["epochs"][EPOCHS - 1]["average"]
    assert not differences({name: after[name] for name in end}, end)
    model = launch.kind()
    assert not model.load_state_dict(after).missing_keys
    dense = sum(p.numel() for p in launch.kind().parameters())
    assert (sum(p.numel() for p in model.parameters()) < dense) == RECIPES[launch.recipe].cuts


# --- strategies that shard ----------------------------------------------------------------------


@pytest.mark.contract("FSDP, DeepSpeed and ModelParallel are refused, with what to use")
@pytest.mark.parametrize("kind", [FSDPStrategy, DeepSpeedStrategy, ModelParallelStrategy])
@pytest.mark.parametrize("recipe", RECIPES)
def test_sharding_strategies_are_refused(recipe, kind, tmp_path):
    """By every stage: none waits for another to do it."""
    callbacks = list(stages(recipe, "classifier", tmp_path).values())
    own = [callback for callback in callbacks if isinstance(callback, PruningStage)]
    assert len(own) >= 2
    for stage in own:
        # Bare: these strategies need devices and packages that a test machine lacks.
        fake = SimpleNamespace(strategy=object.__new__(kind), callbacks=callbacks)
        with pytest.raises(ValueError, match=rf"{kind.__name__} shards.*use strategy='ddp' or a"):
            stage.setup(fake, Classifier(), "fit")
