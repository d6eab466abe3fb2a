"""Gradients taken between epochs: what they leave behind."""

import lightning.pytorch as pl
import pytest
import torch
from torch.nn import functional as F
from torchmetrics.classification import MulticlassAccuracy

from lightning_prune.callbacks._gradients import loss_gradients
from tests.callbacks.classifiers import CLASSES, Classifier, trainer


class Measuring(Classifier):
    """Counts with a metric in the training step, and logs in every way."""

    def __init__(self):
        super().__init__()
        self.metric = MulticlassAccuracy(CLASSES)
        self.frozen = torch.nn.Linear(2, 2).requires_grad_(False)

    def training_step(self, batch, batch_idx):
        logits = self(batch[0])
        self.metric(logits, batch[1])
        self.log("train/accuracy", self.metric)
        self.log_dict({"train/zero": 0.0})
        return F.cross_entropy(logits, batch[1]) if batch_idx else None


class Take(pl.Callback):
    def __init__(self, fail=False):
        self.fail = fail

    def on_train_epoch_start(self, trainer, pl_module):
        weight = pl_module.net.head.weight
        weight.grad = own = torch.full_like(weight, 3.0)
        pl_module.metric.update(torch.eye(CLASSES), torch.arange(CLASSES))
        before = {k: v.clone() for k, v in pl_module.metric.metric_state.items()}
        modes = [m.training for m in pl_module.modules()]
        try:
            with loss_gradients(trainer, pl_module, 64):
                self.inside = {n: p.grad for n, p in pl_module.named_parameters()}
                if self.fail:
                    raise ArithmeticError
        finally:
            assert weight.grad is own
            assert pl_module.net.stem[0].weight.grad is None
            after = pl_module.metric.metric_state
            assert all(torch.equal(value, after[key]) for key, value in before.items())
            assert modes == [m.training for m in pl_module.modules()]
            assert "log" not in vars(pl_module)


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")
def test_metrics_gradients_and_modes_are_those_from_before(tmp_path):
    take = Take()
    run = trainer(tmp_path, [take], 1)
    run.fit(Measuring())
    assert take.inside["frozen.weight"] is None
    # The first of two batches of 32 gave no loss: the other alone counts.
    fresh = Measuring().train()
    images, label = (t[32:] for t in Measuring().train_dataloader().dataset.tensors)
    F.cross_entropy(fresh(images[:32]), label[:32]).backward()
    for name, parameter in fresh.net.named_parameters(prefix="net"):
        torch.testing.assert_close(take.inside[name], parameter.grad, atol=1e-6, rtol=1e-4)
    assert "train/accuracy" in run.callback_metrics


def test_an_error_leaves_nothing_behind(tmp_path):
    with pytest.raises(ArithmeticError):
        trainer(tmp_path, [Take(fail=True)], 1).fit(Measuring())


def test_a_step_without_a_loss_is_refused(tmp_path):
    class Odd(Measuring):
        def training_step(self, batch, batch_idx):
            return "loss"

    with pytest.raises(TypeError, match="training_step returned a str: criteria that use gradien"):
        trainer(tmp_path, [Take()], 1).fit(Odd())
