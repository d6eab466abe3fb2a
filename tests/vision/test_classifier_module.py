"""The classifier with a small network in place of timm's: metrics, weights, pruning, resuming."""

import argparse
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from lightning_prune.loading import load_pruned
from lightning_prune.runs.resume.exact_resume import ExactResume
from lightning_prune.surgery.build_groups import build_groups
from lightning_prune.surgery.cut import cut_channels
from lightning_prune.testing import check_prunable
from lightning_prune.vision.classifier_module import ClassifierModule
from lightning_prune.vision.image_folder import ImageFolderData
from tests.networks import random_plan
from tests.vision.class_folders import write_splits
from tests.vision.small_timm import SMALL_TIMM


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_prune.vision.classifier_timm.require_timm", lambda: SMALL_TIMM)


def module(**options: object) -> ClassifierModule:
    torch.manual_seed(0)
    return ClassifierModule(**{"name": "smallnet_a", "num_classes": 2, **options})  # type: ignore[arg-type]


def scrambled(module: ClassifierModule) -> ClassifierModule:
    with torch.no_grad():
        for value in module.network.state_dict().values():
            if value.is_floating_point():
                value.copy_(torch.rand_like(value) + 0.1)
    return module


def trainer(folder: Path, *callbacks: L.Callback, **options: object) -> L.Trainer:
    return L.Trainer(
        **{
            "accelerator": "cpu", "devices": 1, "logger": False, "default_root_dir": folder,
            "enable_progress_bar": False, "enable_model_summary": False, "max_epochs": 3,
            "enable_checkpointing": bool(callbacks), "callbacks": list(callbacks),
            "num_sanity_val_steps": 0, **options,
        }
    )  # fmt: skip


def test_the_module_normalises_images_itself():
    own = scrambled(module(num_classes=3)).eval()
    images = torch.rand(4, 3, 32, 32)
    mean, std = (torch.tensor(v)[:, None, None] for v in ([0.2, 0.4, 0.6], [0.5, 0.25, 0.2]))
    assert torch.allclose(own(images), own.network((images - mean) / std), atol=1e-6)
    assert own.evaluation_view == {
        "image_size": 32, "crop_fraction": 0.8, "interpolation": "bilinear", "squash": False,
    }  # fmt: skip


def test_other_channels_take_the_mean_of_mean_and_std():
    own = module(in_channels=1)
    assert own.hparams["mean"] == pytest.approx([0.4])
    assert own.example_input_array.shape == (1, 1, 32, 32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "smalnet_a"}, "name='smalnet_a' is no network of timm 0.0: did you mean small"),
        ({"name": "zzz"}, r"timm.list_models\(\) has the names"),
        ({"name": "smallnet_a.nope"}, "has no such weights, but smallnet_a.own"),
        ({"num_classes": None}, "num_classes is missing: pass the number of classes, or weights"),
        ({"num_classes": 1}, "num_classes=1: pass an integer in"),
        ({"names": ["a"]}, "names has 1 entries, num_classes is 2"),
        ({"label_smoothing": 1}, r"label_smoothing=1: pass a number in \[0, 1\)"),
        ({"mean": [0.5]}, r"mean=\[0.5\]: pass 3 numbers, one for a channel"),
        ({"std": [0.0, 1.0, 1.0]}, "std="),
        ({"arguments": {"widht": 3}}, "timm cannot build smallnet_a: .*widht"),
        ({"pretrained": True}, "no weights of smallnet_a came .*pass weights=PATH"),
        ({"pretrained": True, "weights": "x"}, "give one of them"),
    ],
)
def test_bad_arguments_are_refused(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        module(**options)


class Fixed(nn.Module):
    """Gives the logits that its input holds."""

    def forward(self, images: Tensor) -> Tensor:
        return images[:, 0, 0]


def test_metrics_are_those_of_a_reference(tmp_path: Path):
    own = module(num_classes=7, mean=[0.0] * 3, std=[1.0] * 3, label_smoothing=0.3)
    own.network = Fixed()
    logits, labels = torch.randn(50, 7), torch.randint(7, (50,))
    images = logits[:, None, None].expand(-1, 3, 1, -1)
    data = torch.utils.data.TensorDataset(images, labels)
    loader = torch.utils.data.DataLoader(data, batch_size=16)
    for stage in ("val", "test"):
        run = trainer(tmp_path)
        results = run.validate if stage == "val" else run.test
        found = results(own, dataloaders=loader, verbose=False)[0]
        places = logits.argsort(1, descending=True)
        expected = {
            f"{stage}/accuracy": (places[:, 0] == labels).float().mean(),
            f"{stage}/accuracy_top5": (places[:, :5] == labels[:, None]).any(1).float().mean(),
            f"{stage}/loss": (logits.logsumexp(1) - logits[torch.arange(50), labels]).mean(),
        }
        assert found == pytest.approx({name: float(value) for name, value in expected.items()})


def test_few_classes_have_one_accuracy(tmp_path: Path):
    data = ImageFolderData(write_splits(tmp_path))
    found = trainer(tmp_path).validate(module(), datamodule=data, verbose=False)[0]
    assert found.keys() == {"val/accuracy", "val/loss"}


def test_training_smooths_labels():
    own = module(label_smoothing=0.2)
    own.log = lambda *_, **__: None  # type: ignore[method-assign]
    images, labels = torch.rand(4, 3, 32, 32), torch.tensor([0, 1, 1, 0])
    loss = own.training_step((images, labels), 0)
    target = torch.tensor([[0.9, 0.1], [0.1, 0.9]])[labels]
    assert torch.allclose(loss, -(target * own(images).log_softmax(1)).sum(1).mean())


def test_vectors_and_named_parameters_are_not_decayed():
    own = module(name="fixednet", weight_decay=0.3)
    decayed, others = own.make_optimizer().param_groups
    names = {id(parameter): name for name, parameter in own.network.named_parameters()}
    assert {names[id(p)] for p in decayed["params"]} == {
        "stem.weight",
        "body.weight",
        "head.weight",
    }
    assert "place" in {names[id(p)] for p in others["params"]}
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.3, 0.0)


def test_data_of_other_classes_or_another_order_are_refused(tmp_path: Path):
    data = ImageFolderData(write_splits(tmp_path), image_size=32)
    with pytest.raises(ValueError, match="data have num_classes=2, the network was built with 3"):
        trainer(tmp_path).fit(module(num_classes=3), datamodule=data)
    with pytest.raises(
        ValueError, match="class 0 of the data is 'cat', the network calls it 'dog'"
    ):
        trainer(tmp_path).fit(module(names=["dog", "cat"]), datamodule=data)
    with pytest.raises(ValueError, match=r"data have in_channels=3, .* pass model.in_channels=3"):
        trainer(tmp_path).fit(module(in_channels=1), datamodule=data)


@pytest.mark.parametrize(
    "batch",
    [
        (torch.rand(2, 3, 32, 32), {"label": torch.ones(2)}),
        (torch.rand(2, 3, 32, 32), torch.rand(2)),
        (torch.rand(2, 9), torch.ones(2, dtype=torch.long)),
        torch.rand(2, 3, 32, 32),
    ],
)
def test_batches_of_another_kind_are_refused(batch: object):
    for step in (module().training_step, module().validation_step):
        with pytest.raises(ValueError, match="choose data=image_folder"):
            step(batch, 0)  # type: ignore[arg-type]


def save(path: Path, content: object) -> str:
    torch.save(content, path)
    return str(path)


def test_weights_of_timm_are_read(tmp_path: Path):
    network = scrambled(module(num_classes=3)).network
    state, images = network.state_dict(), torch.rand(2, 3, 32, 32)
    spoilt = {name: value * 0 for name, value in state.items()}
    files = {
        "plain": state,
        "training": {
            "state_dict": spoilt, "state_dict_ema": state, "args": argparse.Namespace(lr=1)
        },
        "parallel": {f"module.{name}": value for name, value in state.items()},
    }  # fmt: skip
    for name, content in files.items():
        own = module(num_classes=None, weights=save(tmp_path / f"{name}.pth", content))
        assert (own.hparams["num_classes"], own.pretrained) == (3, True)
        assert torch.equal(own.network.eval()(images), network.eval()(images)), name


def test_a_head_of_other_classes_starts_fresh(tmp_path: Path):
    network = scrambled(module(num_classes=3)).network
    path = save(tmp_path / "x.pth", network.state_dict())
    with pytest.warns(UserWarning, match="weights have 3 classes, num_classes is 2: .* 2 tensors"):
        own = module(weights=path)
    assert not own.pretrained
    assert torch.equal(own.network.body.weight, network.body.weight)
    assert own.network.head.weight.shape == (2, 16)


class Harmful:
    def __reduce__(self):
        return (Path.touch, (Path("harmful"),))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"a": torch.ones(1)},
            r"another network than name='smallnet_a': of its tensors 8 missing .* and 1 not of it",
        ),
        ({"state_dict": {}}, "holds no state dict, but: state_dict"),
        ([1], "holds a list, no state dict"),
        (nn.Linear(1, 1), r"holds a torch.nn.modules.linear.Linear, no state dict"),
        ({"stem.weight": torch.tensor([torch.nan])}, "stem.weight holds NaN"),
        ({"stem.weight": torch.ones(1, dtype=torch.cfloat)}, "weights are real numbers"),
        (Harmful(), "no state dict"),
    ],
)
def test_other_files_are_refused_and_nothing_is_executed(
    tmp_path: Path, content: object, message: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        module(weights=save(tmp_path / "x.pth", content))
    assert not Path("harmful").exists()


def test_files_that_are_not_there_are_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        module(weights=str(tmp_path / "x.pth"))
    with pytest.raises(FileNotFoundError, match="a folder, pass a file in it"):
        module(weights=str(tmp_path))


def test_masked_equals_cut():
    own = scrambled(module())
    found = check_prunable(own, torch.rand(2, 3, 32, 32))
    assert found.groups >= 2


def test_a_cut_module_is_loaded_and_trained_on(tmp_path: Path):
    own = scrambled(module(num_classes=3)).eval()
    groups = build_groups(own, own.example_input_array)
    cut_channels(own, groups, random_plan(groups))
    images = torch.rand(2, 3, 32, 32)
    path = tmp_path / "cut.ckpt"
    run = trainer(tmp_path)
    run.strategy.connect(own)
    run.save_checkpoint(path, weights_only=True)
    loaded = [load_pruned(ClassifierModule, path), module(num_classes=None, weights=str(path))]
    for each in loaded:
        assert each.network.stem.weight.shape[0] == 4
        assert torch.equal(each.eval()(images), own(images))
    assert loaded[1].pretrained
    with pytest.raises(ValueError, match="the pruned weights have 3 classes; leave num_classes"):
        module(num_classes=2, weights=str(path))


def weights_after(folder: Path, root: Path, resume: Path | None, *callbacks: L.Callback) -> dict:
    own = module(drop_rate=0.0)
    data = ImageFolderData(root, image_size=32, batch_size=3)
    run = trainer(folder, *callbacks, ExactResume())
    run.fit(own, datamodule=data, ckpt_path=resume, weights_only=True)
    return own.state_dict()


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_a_resumed_run_ends_as_an_uninterrupted_one(tmp_path: Path):
    root = write_splits(tmp_path / "data")
    each = ModelCheckpoint(
        tmp_path / "all", "{step}", every_n_train_steps=1, save_top_k=-1,
        auto_insert_metric_name=False,
    )  # fmt: skip
    whole = weights_after(tmp_path, root, None, each)
    resumed = weights_after(tmp_path, root, tmp_path / "all/6.ckpt")  # of 4 + 4 + 4 steps
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
