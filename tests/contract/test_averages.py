"""Averaged copies of the model are masked and cut with it, and begin again at the cut."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, StochasticWeightAveraging

from lightning_prune.callbacks.exponential_moving_average import ExponentialMovingAverage
from lightning_prune.surgery.mask import ChannelMask
from tests.contract.registry import RECIPES, stages
from tests.contract.runs import QUIET, fit, pairs

pytestmark = [
    *QUIET,
    pytest.mark.filterwarnings(
        "ignore:Swapping scheduler",
        "ignore:SWA is currently only supported every epoch",
        "ignore:StochasticWeightAveraging. Lightning does not keep",
    ),
]
AVERAGES = {
    "ours": lambda: ExponentialMovingAverage(0.9, 5.0),
    "EMA": lambda: EMAWeightAveraging(decay=0.9),
    "SWA": lambda: StochasticWeightAveraging(1e-3, swa_epoch_start=1),
}


class Watch(Callback):
    """Looks at the average while channels are masked, and at the cut."""

    def __init__(self, average: Any) -> None:
        self.average, self.masked, self.cut = average, 0, 0

    def copy(self) -> Any:
        average = self.average._average_model
        return getattr(average, "module", average)

    def updates(self) -> int:
        swa = isinstance(self.average, StochasticWeightAveraging)
        return int(self.average.n_averaged if swa else self.average._average_model.n_averaged)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        for stage in trainer.callbacks:
            plan, groups = getattr(stage, "plan", None), getattr(stage, "groups", None)
            if plan and groups is not None and self.copy() is not None:
                assert ChannelMask(self.copy(), groups, plan).violations() == []
                self.masked += 1

    def on_channels_pruned(self, trainer: Any, pl_module: Any, pruned: Any) -> None:
        if self.copy() is None:  # SWA begins with its own epoch
            return
        for name, value in pl_module.state_dict().items():
            assert torch.equal(self.copy().state_dict()[name], value), name
        assert self.updates() == 0
        self.cut += 1


@pytest.mark.contract("EMA and SWA: masked and cut with the model, begun again at the cut")
@pytest.mark.parametrize("pair", pairs())
@pytest.mark.parametrize("kind", AVERAGES)
def test_averages_live_with_the_model(kind: str, pair: tuple[str, str], tmp_path: Path) -> None:
    recipe, module = pair
    average = AVERAGES[kind]()
    watch = Watch(average)
    run = fit(
        tmp_path, module, [*stages(recipe, module, tmp_path).values(), average, watch],

    )  # fmt: skip
    if RECIPES[recipe].cuts:
        assert watch.cut == 1
        assert watch.masked > 0 or recipe in ("magnitude", "compress")  # in one go
        assert watch.updates() > 0
    widths = {name: p.shape for name, p in run.lightning_module.named_parameters()}
    assert {name: p.shape for name, p in watch.copy().named_parameters()} == widths


@pytest.mark.contract("an average before the stages is refused, with what to move")
@pytest.mark.parametrize("pair", pairs())
@pytest.mark.parametrize("kind", AVERAGES)
def test_an_average_before_the_stages(kind: str, pair: tuple[str, str], tmp_path: Path) -> None:
    recipe, module = pair
    callbacks = [AVERAGES[kind](), *stages(recipe, module, tmp_path).values()]
    with pytest.raises(ValueError, match="put the pruning callbacks first"):
        fit(tmp_path, module, callbacks)
