import math
import warnings

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.ops import box_convert, box_iou

from lightning_prune.callbacks.exponential_moving_average import ExponentialMovingAverage
from lightning_prune.detection.data.letterbox import letterbox
from lightning_prune.detection.module import DetectionModule
from lightning_prune.detection.network.postprocess import non_maximum_suppression
from lightning_prune.detection.network.reset_network import YOLOv8Reset
from lightning_prune.detection.weights.conversion import convert_ultralytics
from lightning_prune.graph.trace import trace_groups
from lightning_prune.plan import PruningPlan
from lightning_prune.surgery.cut import cut_channels
from tests.detection.network.foreign_pickle import save_foreign
from tests.detection.network.layout import recipe_state, ultralytics_layout

SIDE = 64

# Most runs here need no validation.
pytestmark = pytest.mark.filterwarnings("ignore:.*no `val_dataloader`:UserWarning")


class Squares(Dataset):
    """Bright squares of two sizes on a dark ground: class 0 small, class 1 large."""

    def __init__(self, count, objects=True):
        self.count, self.objects = count, objects

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        image = torch.rand(3, SIDE, SIDE, generator=generator) * 0.1
        label = index % 2
        side = 24 + 16 * label
        x, y = (torch.rand(2, generator=generator) * (SIDE - side)).int().tolist()
        image[:, y : y + side, x : x + side] = 1.0
        box = torch.tensor([[x + side / 2, y + side / 2, side, side]]) / SIDE
        return (image, label, box) if self.objects else (image, label, box[:0])


def collate(items):
    counts = torch.tensor([len(box) for _, _, box in items])
    labels = torch.tensor([label for _, label, _ in items])
    targets = {
        "image": torch.arange(len(items)).repeat_interleave(counts),
        "label": labels.repeat_interleave(counts),
        "box": torch.cat([box for _, _, box in items]),
    }
    return torch.stack([image for image, _, _ in items]), targets


def loader(count=8, batch_size=4, objects=True):
    return DataLoader(Squares(count, objects), batch_size, collate_fn=collate)


def module(**arguments):
    return DetectionModule(**{"num_classes": 2, "image_size": SIDE, **arguments})


def trainer(tmp_path, **arguments):
    defaults = {
        "max_epochs": 1, "logger": False, "enable_checkpointing": False, "accelerator": "cpu",
        "enable_progress_bar": False, "enable_model_summary": False,
        "default_root_dir": tmp_path, "num_sanity_val_steps": 1,
    }  # fmt: skip
    return L.Trainer(**{**defaults, **arguments})


class Rates(L.Callback):
    def __init__(self):
        self.values = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.values.append(optimizer.param_groups[0]["lr"])


def test_forward_layouts():
    model = module()
    assert model.eval()(torch.zeros(2, 3, 64, 96)).shape == (2, 6, 126)
    assert [m.shape[1] for m in model.train()(torch.zeros(2, 3, 64, 64))] == [66, 66, 66]
    assert model.example_input_array.shape == (1, 3, SIDE, SIDE)


def test_trains_validates_and_tests(tmp_path):
    model = module(optimizer="adamw", lr=1e-3)
    fit = trainer(tmp_path, max_epochs=2)
    fit.fit(model, loader(), loader())
    names = {"train/loss", "train/box_loss", "train/class_loss", "train/dfl_loss"}
    names |= {"val/map50", "val/map50_95"}
    assert set(fit.callback_metrics) == names
    assert all(math.isfinite(value) for value in fit.callback_metrics.values())
    (result,) = fit.test(model, loader(), verbose=False)
    assert set(result) == {"test/map50", "test/map50_95"}
    (again,) = fit.test(model, loader(), verbose=False)
    assert again == result
    assert not [name for name in model.state_dict() if "map" in name]


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_trains_in_half_precision(tmp_path, precision):
    model = module()
    average = [ExponentialMovingAverage(0.9, 10)]
    fit = trainer(tmp_path, max_epochs=1, precision=precision, callbacks=average)
    fit.fit(model, loader(), loader())
    assert math.isfinite(fit.callback_metrics["train/loss"])
    assert fit.callback_metrics["val/map50"] >= 0
    assert model.network.head.dfl.bins.tolist() == list(range(16))
    fit.save_checkpoint(tmp_path / "x.ckpt")
    torch.load(tmp_path / "x.ckpt", weights_only=True)


def test_learns_the_squares(tmp_path):
    L.seed_everything(0, verbose=False)
    model = module(optimizer="adamw", lr=3e-3, warmup_epochs=0.5, schedule="one_cycle")
    fit = trainer(tmp_path, max_epochs=8, limit_val_batches=0)
    fit.fit(model, loader(128, 8))
    (result,) = fit.test(model, loader(16, 8), verbose=False)
    assert result["test/map50"] > 0.9
    rows = model.eval().detect(Squares(4)[0][0][None])[0]
    assert rows.shape[1] == 6
    predictions = fit.predict(model, loader(4))
    assert len(predictions[0]) == 4


def test_losses_are_times_the_batch_size(tmp_path):
    model = module().train()
    batch = collate([Squares(4)[i] for i in range(4)])
    fit = trainer(tmp_path, max_epochs=1, limit_val_batches=0, max_steps=1)
    fit.fit(model, DataLoader([0], batch_size=None, collate_fn=lambda _: batch))
    parts = sum(fit.callback_metrics[f"train/{name}_loss"] for name in ("box", "class", "dfl"))
    assert fit.callback_metrics["train/loss"].item() == pytest.approx(parts.item(), rel=1e-5)
    model.network.train()
    loss = model.loss(model.network(batch[0]), batch[1])
    assert loss.total.item() == pytest.approx(
        4 * (loss.box + loss.classes + loss.dfl).item(), rel=1e-5
    )


def test_data_without_objects(tmp_path):
    model = module()
    fit = trainer(tmp_path, num_sanity_val_steps=0)
    with pytest.warns(UserWarning, match="no object"):
        fit.fit(model, loader(objects=False), loader(objects=False))
    assert fit.callback_metrics["val/map50"] == 0


def test_refuses_data_with_more_classes(tmp_path):
    class Data(L.LightningDataModule):
        num_classes = 5

        def train_dataloader(self):
            return loader()

    with pytest.raises(ValueError, match="5 classes, the network 2"):
        trainer(tmp_path).fit(module(), datamodule=Data())


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_schedule_covers_the_run(tmp_path, accumulate):
    rates = Rates()
    model = module(lr=0.1, warmup_epochs=1.0, final_lr=0.1)
    fit = trainer(
        tmp_path, max_epochs=5, limit_val_batches=0, callbacks=[rates],
        accumulate_grad_batches=accumulate,
    )  # fmt: skip
    fit.fit(model, loader(16, 2))
    per_epoch = 8 // accumulate
    assert len(rates.values) == 5 * per_epoch
    assert int(np.argmax(rates.values)) == per_epoch
    assert max(rates.values) == pytest.approx(0.1)
    assert np.all(np.diff(rates.values[per_epoch:]) < 0)
    last = 0.1 * (1 - 0.9 * (4 * per_epoch - 1) / (4 * per_epoch))
    assert rates.values[-1] == pytest.approx(last)


def test_the_schedule_follows_a_longer_run(tmp_path):
    class Extend(L.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                trainer.fit_loop.max_epochs = 4

    rates = Rates()
    fit = trainer(tmp_path, max_epochs=2, limit_val_batches=0, callbacks=[Extend(), rates])
    fit.fit(module(lr=0.1, warmup_epochs=0, final_lr=0.0), loader())
    # The rate of step 2 was set at the end of step 1, when the run was still to end at step 4.
    assert rates.values[2] == pytest.approx(0.05)
    assert rates.values[3:] == pytest.approx([0.1 * (1 - s / 8) for s in range(3, 8)])


def test_a_resumed_run_has_the_same_rates(tmp_path):
    class Stop(L.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.should_stop = trainer.current_epoch == 1

    whole, rest = Rates(), Rates()
    arguments = {"limit_val_batches": 0, "max_epochs": 4}
    trainer(tmp_path, callbacks=[whole], **arguments).fit(module(), loader())
    first = trainer(tmp_path, callbacks=[Stop()], **arguments)
    first.fit(module(), loader())
    first.save_checkpoint(tmp_path / "x.ckpt")
    second = trainer(tmp_path, callbacks=[rest], **arguments)
    second.fit(module(), loader(), ckpt_path=tmp_path / "x.ckpt")
    assert len(rest.values) == 4
    assert rest.values == pytest.approx(whole.values[4:])


def test_a_rebuilt_schedule_covers_the_rest(tmp_path):
    class Rebuild(L.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 2:
                trainer.strategy.setup_optimizers(trainer)

    rates = Rates()
    fit = trainer(tmp_path, max_epochs=4, limit_val_batches=0, callbacks=[Rebuild(), rates])
    fit.fit(module(lr=0.1, warmup_epochs=0, final_lr=0.0), loader())
    expected = [0.1 * (1 - s / 8) for s in range(4)] + [0.1 * (1 - s / 4) for s in range(4)]
    assert rates.values == pytest.approx(expected)


def test_a_run_without_end_keeps_the_rate(tmp_path):
    rates = Rates()
    fit = trainer(
        tmp_path, max_epochs=-1, max_time={"seconds": 1}, limit_val_batches=0, callbacks=[rates]
    )
    with pytest.warns(UserWarning, match="run without end"):
        fit.fit(module(), loader())
    assert set(rates.values) == {0.01}


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_decays_weights_only(tmp_path, kind):
    model = module(optimizer=kind, weight_decay=0.1)
    model.network.backbone.p1.conv.weight.requires_grad_(False)
    optimizer = model.make_optimizer()
    decayed, plain = optimizer.param_groups
    assert decayed["weight_decay"] == 0.1
    assert plain["weight_decay"] == 0.0
    assert all(p.ndim > 1 for p in decayed["params"])
    assert all(p.ndim <= 1 for p in plain["params"])
    together = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert together == {id(p) for p in model.parameters() if p.requires_grad}
    if kind == "sgd":
        assert decayed["nesterov"]
        assert decayed["momentum"] == 0.937


def test_checkpoints_hold_plain_data_and_rebuild(tmp_path):
    weights = save_foreign(
        tmp_path / "best.pt", {"model": recipe_state(ultralytics_layout("n", 2), 1, 1.0)},
        names={0: "small", 1: "large"}, train_args={"imgsz": 100},
    )  # fmt: skip
    model = DetectionModule(weights=str(weights), lr=0.02)
    assert model.pretrained
    assert model.hparams["image_size"] == 128
    fit = trainer(tmp_path, max_steps=1, limit_val_batches=0)
    fit.fit(model, loader())
    fit.save_checkpoint(tmp_path / "x.ckpt")
    weights.unlink()
    torch.load(tmp_path / "x.ckpt", weights_only=True)
    again = DetectionModule.load_from_checkpoint(tmp_path / "x.ckpt", map_location="cpu")
    assert "weights" not in again.hparams
    assert dict(again.hparams) == dict(model.hparams)
    assert again.hparams["names"] == ["small", "large"]
    assert not again.pretrained
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    warm = DetectionModule(weights=str(tmp_path / "x.ckpt"))
    assert warm.pretrained
    assert warm.hparams["names"] == ["small", "large"]
    x = torch.rand(1, 3, SIDE, SIDE)
    with torch.no_grad():
        assert torch.equal(warm.eval()(x), model.eval()(x))


def test_starts_from_weights_of_other_classes(tmp_path):
    state = recipe_state(ultralytics_layout("n", 80), 1, 1.0)
    torch.save(state, tmp_path / "x.pt")
    with pytest.warns(UserWarning, match="80 classes, num_classes is 2: the class head"):
        model = module(weights=str(tmp_path / "x.pt"))
    assert not model.pretrained
    for name, value in convert_ultralytics(state).items():
        if not name.startswith("head.classes."):
            assert torch.equal(model.network.state_dict()[name], value)


def prune_some(model):
    groups = trace_groups(model, torch.zeros(1, 3, SIDE, SIDE))
    names = list(groups)[::7]
    keep = {name: torch.arange(groups[name].channels // 2) for name in names}
    cut_channels(model, groups, PruningPlan(keep, {name: groups[name].channels for name in names}))
    return len(names)


def test_pruned_checkpoints_load_and_serve_as_weights(tmp_path):
    model = module()
    fit = trainer(tmp_path, max_steps=1, limit_val_batches=0)
    fit.fit(model, loader())
    assert prune_some(model) > 3
    fit.save_checkpoint(tmp_path / "x.ckpt")
    x = torch.rand(1, 3, SIDE, SIDE)
    with torch.no_grad():
        expected = model.eval()(x)
        loaded = DetectionModule.load_from_checkpoint(tmp_path / "x.ckpt", map_location="cpu")
        assert torch.equal(loaded.eval()(x), expected)
        warm = DetectionModule(weights=str(tmp_path / "x.ckpt"))
        assert warm.pretrained
        assert torch.equal(warm.eval()(x), expected)
    with pytest.raises(ValueError, match="pruned weights have 2 classes"):
        module(weights=str(tmp_path / "x.ckpt"), num_classes=3)


def test_reset_blocks_save_and_load(tmp_path):
    model = module(reset_blocks=True, topk=0.5)
    fit = trainer(tmp_path, max_steps=1, limit_val_batches=0)
    fit.fit(model, loader())
    assert model.network.backbone.p5.csp.channel_usage_count.max() == 1
    fit.save_checkpoint(tmp_path / "x.ckpt")
    torch.load(tmp_path / "x.ckpt", weights_only=True)
    again = DetectionModule.load_from_checkpoint(tmp_path / "x.ckpt", map_location="cpu")
    assert isinstance(again.network, YOLOv8Reset)
    assert again.network.backbone.p4.csp.topk == 0.5
    x = torch.rand(1, 3, SIDE, SIDE)
    with torch.no_grad():
        assert torch.equal(again.eval()(x), model.eval()(x))
    state = model.state_dict()
    originals = [name for name in state if ".originals." in name]
    assert len(originals) == 15
    assert not torch.equal(state[originals[0]], state["network.backbone.p3.csp.conv3.conv.weight"])
    assert again.state_dict().keys() == state.keys()
    for name, value in again.state_dict().items():
        assert torch.equal(value, state[name])


@pytest.mark.parametrize("pruned", [False, True])
def test_checkpoints_of_reset_blocks_serve_as_weights_of_both(tmp_path, pruned):
    """A run starts from the weights it is given: they are its originals."""
    model = module(reset_blocks=True)
    fit = trainer(tmp_path, max_steps=1, limit_val_batches=0)
    fit.fit(model, loader())
    if pruned:
        name = "network.backbone.p4.csp.conv3.conv"
        keep = torch.arange(0, 128, 3)
        groups = trace_groups(model, torch.zeros(1, 3, SIDE, SIDE))
        cut_channels(model, groups, PruningPlan({name: keep}, {name: 128}))
        assert len(model.network.backbone.p4.csp.channel_usage_count) == len(keep)
    fit.save_checkpoint(tmp_path / "x.ckpt")
    x = torch.rand(1, 3, SIDE, SIDE)
    expected = model.eval()(x).detach()
    for reset_blocks in (False, True):
        warm = DetectionModule(weights=str(tmp_path / "x.ckpt"), reset_blocks=reset_blocks)
        assert warm.pretrained
        with torch.no_grad():
            assert torch.equal(warm.eval()(x), expected)
        assert isinstance(warm.network, YOLOv8Reset) == reset_blocks
    again = DetectionModule.load_from_checkpoint(tmp_path / "x.ckpt", map_location="cpu")
    with torch.no_grad():
        assert torch.equal(again.eval()(x), expected)
    state, before = warm.state_dict(), model.state_dict()
    for level in ("p3", "p4", "p5"):
        block = f"network.backbone.{level}.csp."
        assert torch.equal(state[f"{block}originals.weight"], state[f"{block}conv3.conv.weight"])
        saved = before[f"{block}originals.weight"]
        assert not torch.equal(state[f"{block}originals.weight"], saved)
        assert torch.equal(again.state_dict()[f"{block}originals.weight"], saved)


def test_reset_blocks_start_from_ordinary_checkpoints(tmp_path):
    model = module()
    fit = trainer(tmp_path, max_steps=1, limit_val_batches=0)
    fit.fit(model, loader())
    fit.save_checkpoint(tmp_path / "x.ckpt")
    warm = DetectionModule(weights=str(tmp_path / "x.ckpt"), reset_blocks=True)
    x = torch.rand(1, 3, SIDE, SIDE)
    with torch.no_grad():
        assert torch.equal(warm.eval()(x), model.eval()(x))
    warm.network.backbone.p3.csp.reset_all_channels("zero")
    warm.network.backbone.p3.csp.reset_all_channels("original")
    with torch.no_grad():
        assert torch.equal(warm(x), model(x))


@pytest.mark.parametrize("mode", ["trained", "noise", "none"])
def test_object_samples_equal_the_slow_way(mode):
    torch.manual_seed(3)
    model = module().eval()
    items = [Squares(12)[i] for i in range(12)]
    images, targets = collate(items)
    targets = {k: torch.cat((v, v.flip(0))) for k, v in targets.items()}
    outputs = model(images).detach()
    if mode != "none":
        # Predictions around the objects, several per object, of right and wrong classes.
        anchors = outputs.shape[2]
        outputs[:, 4:] = torch.rand(12, 2, anchors) ** (8 if mode == "trained" else 2)
        box = targets["box"][:12, :, None] * SIDE
        outputs[:, :4] = box + torch.randn(12, 4, anchors) * 4
        outputs[:, 2:4].clamp_(min=1)
    found = model.object_samples((images, targets), outputs)
    corners = box_convert(targets["box"] * SIDE, "cxcywh", "xyxy")
    expected = []
    for rows, image in zip(
        [non_maximum_suppression(outputs, 0.25, 0.7, 10_000)[i] for i in targets["image"]],
        range(24), strict=True,
    ):  # fmt: skip
        same = rows[rows[:, 5] == targets["label"][image]]
        overlap = box_iou(same[:, :4], corners[image : image + 1])
        expected.append(bool((overlap > 0.5).any()))
    assert found.correct.tolist() == expected
    assert any(expected) == (mode != "none")
    assert torch.equal(found.image, targets["image"])
    assert torch.equal(found.label, targets["label"])
    assert torch.equal(torch.stack(found[3:], 1), targets["box"])


def test_object_samples_of_nothing():
    model = module().eval()
    images, targets = collate([Squares(2, objects=False)[0]])
    assert model.object_samples((images, targets), model(images)).correct.shape == (0,)


def test_detect_needs_eval_mode():
    with pytest.raises(RuntimeError, match="eval mode"):
        module().train().detect(torch.zeros(2, 3, SIDE, SIDE))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": None}, "num_classes is missing"),
        ({"num_classes": 0}, "num_classes=0"),
        ({"num_classes": 2.5}, "num_classes"),
        ({"size": "huge"}, "pass 'n', 's', 'm', 'l', 'x' or 'custom'"),
        ({"image_size": 100}, "multiple of 32"),
        ({"image_size": 0}, "multiple of 32"),
        ({"names": ["one"]}, "one name per class"),
        ({"optimizer": "adam"}, "pass 'sgd' or 'adamw'"),
        ({"schedule": "step"}, "pass 'linear', 'cosine' or 'one_cycle'"),
        ({"lr": 0}, "lr=0: pass a number above 0, a learning rate"),
        ({"lr": float("nan")}, "lr=nan"),
        ({"lr": "fast"}, "lr='fast'"),
        ({"momentum": 1.0}, "momentum"),
        ({"weight_decay": -1}, "weight_decay"),
        ({"warmup_epochs": -1}, "warmup_epochs"),
        ({"final_lr": 1.5}, "final_lr"),
        ({"box_gain": -1}, "box_gain"),
        ({"confidence": 1.0}, "confidence"),
        ({"nms_iou": 1.1}, "nms_iou"),
        ({"max_detections": 0}, "max_detections"),
        ({"object_confidence": True}, "object_confidence"),
        ({"reset_blocks": 1}, "reset_blocks=1: pass true or false"),
        (
            {"reset_blocks": True, "topk": 0},
            r"topk=0: pass a number in \(0, 1\] or null, the fraction of places that stay",
        ),
        ({"reset_blocks": True, "topk": 1.5}, "topk=1.5"),
        ({"reset_blocks": True, "topk": True}, "topk=true"),
        ({"reset_blocks": True, "topk": "half"}, "topk='half'"),
        ({"topk": 0.5}, "topk=0.5 needs reset_blocks=true"),
    ],
)
def test_refuses_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        module(**arguments)


def test_arguments_that_contradict_the_weights(tmp_path):
    weights = save_foreign(
        tmp_path / "x.pt", {"model": recipe_state(ultralytics_layout("n", 2), 1, 1.0)},
        names={0: "small", 1: "large"},
    )  # fmt: skip
    with pytest.raises(ValueError, match="weights are of size 'n'"):
        module(weights=str(weights), size="s")
    with pytest.warns(UserWarning, match="keeps the order of the weights"):
        module(weights=str(weights), names=["large", "small"])
    with pytest.raises(FileNotFoundError):
        module(weights=str(tmp_path / "absent.pt"))


def test_reaches_the_published_figures_on_coco_photos(shared, tmp_path):
    model = DetectionModule(
        weights=str(shared / "data" / "yolov8n_coco" / "yolov8n_coco.safetensors")
    )
    folder = shared / "data" / "coco_open"
    files = sorted((folder / "images" / "val").iterdir())
    assert len(files) == 27

    class Photos(Dataset):
        def __len__(self):
            return len(files)

        def __getitem__(self, index):
            image = np.array(Image.open(files[index]).convert("RGB"))
            fitted = letterbox(image, 640)
            path = folder / "labels" / "val" / f"{files[index].stem}.txt"
            rows = torch.tensor(np.loadtxt(path, ndmin=2), dtype=torch.float32)
            scale = torch.tensor([fitted.width, fitted.height] * 2) / 640
            shift = torch.tensor([fitted.left, fitted.top, 0, 0]) / 640
            pixels = torch.tensor(fitted.image).permute(2, 0, 1).float() / 255
            return pixels, rows[:, 0].long(), rows[:, 1:] * scale + shift

    def one(items):
        ((image, label, box),) = items
        targets = {"image": torch.zeros_like(label), "label": label, "box": box}
        return image[None], targets

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (result,) = trainer(tmp_path).test(
            model, DataLoader(Photos(), 1, collate_fn=one), verbose=False
        )
    assert result["test/map50"] == pytest.approx(0.663, abs=0.02)
    assert result["test/map50_95"] == pytest.approx(0.486, abs=0.02)
