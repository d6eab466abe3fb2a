"""Maskers that aim at milliseconds, by tables of made-up machines and by this one."""

import json

import lightning.pytorch as pl
import pytest
import torch

from lightning_prune.callbacks.channel_masker import ChannelMasker
from lightning_prune.callbacks.physical_pruner import PhysicalPruner
from lightning_prune.callbacks.sequential_activation_masker import SequentialActivationMasker
from lightning_prune.engine.measured_target import nearest_measured
from lightning_prune.graph.macs import MacModel
from lightning_prune.latency.measured import MeasuredFraction
from lightning_prune.latency.table import table_of
from lightning_prune.latency.timer import machine
from lightning_prune.surgery.build_groups import build_groups
from tests.callbacks.classifiers import EXAMPLE, FAST, Classifier, trainer
from tests.latency.networks import job_of, made_up_times

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

ONE_STEP = {
    "start_epoch": 1, "end_epoch": 2, "hold_epochs": 0, "round_to": 2, "mac_target": None,
    "recalibrate_images": 0, "compensate_images": 0, "dense_checkpoint": None,
}  # fmt: skip


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A machine where the constant is small and the stem is dear."""
    net = Classifier().eval()
    groups = build_groups(net, EXAMPLE)
    macs = MacModel.of(net, groups, EXAMPLE)
    job = job_of(net, groups, EXAMPLE, plans=5)
    times = made_up_times(net, job, macs, (0.01, 1.0, 1e-6, 0.0), EXAMPLE)
    path = tmp_path_factory.mktemp("table") / "latency.json"
    made = table_of(job.description(), times, macs)
    path.write_text(json.dumps(made.content()))
    return path, made.model(macs)


def sequential(**options):
    return SequentialActivationMasker(
        start_epoch=1, clusterer=FAST, layers_per_step=None, keep_range=(0.1, 1.0), round_to=2,
        hold_epochs=0, images=96, recalibrate_images=0, compensate_images=0, mac_target=None,
        **options,
    )  # fmt: skip


class Stop(pl.Callback):
    """Ends a run behind its first epoch."""

    def on_train_epoch_end(self, trainer, pl_module):
        trainer.should_stop = True


@pytest.mark.parametrize("ranking", ["local", "global", "measured"])
@pytest.mark.parametrize("target", [0.85, 0.75])
def test_widths_meet_the_time(table, tmp_path, ranking, target):
    path, model = table
    masker = ChannelMasker(
        **ONE_STEP, ranking=ranking, latency_target=target, latency_table=str(path)
    )
    trainer(tmp_path, [masker, PhysicalPruner(recalibrate_images=0)], 3).fit(Classifier())
    fraction = model.remaining(masker._state.plan.widths()) / model.total
    assert target - 0.12 < fraction <= target
    assert masker._state.met
    assert masker._state.latency_fraction is None, "the table is of another machine"


def test_milliseconds_are_a_fraction_of_the_dense_time(table, tmp_path):
    path, _ = table
    content = json.loads(path.read_text())
    scale = 10 / content["dense"]  # a slower machine of the same proportions
    content["factors"] = [factor * scale for factor in content["factors"]]
    content["dense"] = 10.0
    slow = tmp_path / "slow.json"
    slow.write_text(json.dumps(content))
    plans = []
    for target, file in ((0.75, path), (7.5, slow)):
        masker = ChannelMasker(**ONE_STEP, latency_target=target, latency_table=str(file))
        trainer(tmp_path, [masker, PhysicalPruner(recalibrate_images=0)], 3).fit(Classifier())
        plans.append(masker._state.plan.widths())
    assert plans[0] == plans[1]


@pytest.mark.filterwarnings("ignore:.*separate the classes no better")
def test_the_sequential_masker_plans_widths_by_time(table, tmp_path):
    path, model = table
    masker = sequential(latency_target=0.8, latency_table=str(path))
    trainer(tmp_path, [masker, PhysicalPruner(recalibrate_images=0)], 3).fit(Classifier())
    fraction = model.remaining(masker._state.widths) / model.total
    assert 0.6 < fraction <= 0.8
    assert "latency_target" in {decision.bound for decision in masker.decisions}


@pytest.mark.filterwarnings("ignore:ChannelMasker masked nothing")
def test_a_resumed_run_decides_by_the_table_that_it_began_with(table, tmp_path):
    path, _ = table
    own = tmp_path / "own.json"
    own.write_text(path.read_text())
    options = {**ONE_STEP, "start_epoch": 2, "end_epoch": 3}
    first = ChannelMasker(**options, latency_target=0.75, latency_table=str(own))
    run = trainer(tmp_path / "a", [first, PhysicalPruner(recalibrate_images=0), Stop()], 4)
    run.fit(Classifier())
    run.save_checkpoint(tmp_path / "one.ckpt")
    saved = torch.load(tmp_path / "one.ckpt", weights_only=True)
    assert any("latency_table" in state for state in saved["callbacks"].values())
    own.unlink()
    again = ChannelMasker(**options, latency_target=0.75, latency_table=str(own))
    resumed = trainer(tmp_path / "b", [again, PhysicalPruner(recalibrate_images=0)], 4)
    resumed.fit(Classifier(), ckpt_path=tmp_path / "one.ckpt")
    whole = ChannelMasker(**options, latency_target=0.75, latency_table=str(path))
    trainer(tmp_path / "c", [whole, PhysicalPruner(recalibrate_images=0)], 4).fit(Classifier())
    for name, keep in whole._state.plan.keep.items():
        assert torch.equal(again._state.plan.keep[name], keep)


@pytest.mark.parametrize("make", ["channels", "sequential"])
@pytest.mark.filterwarnings("ignore:.*separate the classes no better")
def test_what_was_found_is_measured_and_corrected(table, tmp_path, monkeypatch, make):
    """The table is of this machine, which takes longer than it says."""
    path, model = table
    own = tmp_path / "here.json"
    own.write_text(json.dumps(json.loads(path.read_text()) | {"machine": machine()}))

    def slower(self, widths):
        return 0.1 + 0.9 * model.remaining(widths) / model.total

    monkeypatch.setattr(MeasuredFraction, "__call__", slower)
    options = {"latency_target": 0.8, "latency_table": str(own)}
    masker = ChannelMasker(**ONE_STEP, **options) if make == "channels" else sequential(**options)
    trainer(tmp_path, [masker, PhysicalPruner(recalibrate_images=0)], 3).fit(Classifier())
    state = masker._state
    assert state.latency_fraction == pytest.approx(slower(None, state.plan.widths()))
    assert 0.7 < state.latency_fraction <= 0.808
    believed = model.remaining(state.plan.widths()) / model.total
    assert believed < state.latency_fraction


def test_two_targets_and_bad_tables_are_refused(table, tmp_path):
    path, _ = table
    both = r"latency_target=0\.5 and mac_target=0\.5: .* mac_target=null"
    with pytest.raises(ValueError, match=both):
        ChannelMasker(latency_target=0.5)
    with pytest.raises(ValueError, match="latency_target"):
        ChannelMasker(mac_target=None, latency_target=0.0)
    with pytest.raises(ValueError, match=r"latency_table='a\.json' has no effect without a lat"):
        ChannelMasker(latency_table="a.json")

    def fit(**options):
        masker = ChannelMasker(**ONE_STEP, **options)
        trainer(tmp_path, [masker, PhysicalPruner(recalibrate_images=0)], 2).fit(Classifier())

    with pytest.raises(ValueError, match=r"latency_table=.*none\.json: there is no such file"):
        fit(latency_target=0.5, latency_table=str(tmp_path / "none.json"))
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ValueError, match="is no latency table of version 1"):
        fit(latency_target=0.5, latency_table=str(tmp_path / "other.json"))
    content = json.loads(path.read_text())
    content["layers"] = {"net.elsewhere": 0}
    (tmp_path / "other.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"another network: layer 'net\.elsewhere'"):
        fit(latency_target=0.5, latency_table=str(tmp_path / "other.json"))
    with pytest.raises(ValueError, match=r"latency_target=1000.* the dense network takes"):
        fit(latency_target=1000.0, latency_table=str(path))
    with pytest.raises(ValueError, match=r"latency_target=0\.01 .* cannot be reached"):
        fit(latency_target=0.01, latency_table=str(path))


def test_a_biased_model_is_corrected_by_what_is_measured():
    found, real = nearest_measured(lambda aim: round(aim, 3), lambda f: 0.1 + 0.9 * f, 0.5)
    assert real == pytest.approx(0.5, rel=0.01)
    assert found == pytest.approx(0.4 / 0.9, rel=0.02)
    with pytest.raises(ValueError, match="out of reach"):
        nearest_measured(lambda aim: None, lambda f: f, 0.5)
    far, _ = nearest_measured(lambda aim: aim if aim > 0.49 else None, lambda f: 2 * f, 0.5)
    assert far == 0.5, "the one that could be had"
