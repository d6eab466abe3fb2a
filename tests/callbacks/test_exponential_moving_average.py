import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from lightning_prune.callbacks.exponential_moving_average import ExponentialMovingAverage
from tests.callbacks.classifiers import Classifier, trainer


class Weights(pl.Callback):
    """Notes weights and a buffer after every optimizer step, before any average is updated."""

    def __init__(self):
        self.weight, self.buffer = [], []

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.weight.append(pl_module.net.deep[0].weight.detach().numpy().astype(np.float64))
        self.buffer.append(pl_module.net.deep[1].running_var.numpy().astype(np.float64))


def recursion(values, decay, ramp):
    average = values[0]
    for updates, value in enumerate(values[1:], start=1):
        d = decay * (1 - np.exp(-updates / ramp))
        average = d * average + (1 - d) * value
    return average


@pytest.mark.parametrize(("decay", "ramp"), [(0.9, 5.0), (0.99, 50.0), (0.0, 1.0)])
def test_the_average_is_that_of_the_recursion(decay, ramp, tmp_path):
    weights, average, model = Weights(), ExponentialMovingAverage(decay, ramp), Classifier()
    trainer(tmp_path, [weights, average], 3).fit(model)
    assert len(weights.weight) == 18
    for seen, now in (
        (weights.weight, model.net.deep[0].weight),
        (weights.buffer, model.net.deep[1].running_var),
    ):
        expected = recursion(seen, decay, ramp)
        np.testing.assert_allclose(now.detach().numpy(), expected, atol=2e-6, rtol=1e-5)
    # Counters are copied, not averaged.
    assert int(model.net.deep[1].num_batches_tracked) == 18


def test_accumulated_batches_count_once(tmp_path):
    average = ExponentialMovingAverage(0.9, 5.0)
    counted = []

    class Count(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            counted.append(int(average._average_model.n_averaged))

    trainer(tmp_path, [average, Count()], 1, accumulate_grad_batches=3).fit(Classifier())
    assert counted == [0, 0, 1, 1, 1, 2]


def test_validation_sees_the_average_and_training_does_not(tmp_path):
    seen = {}

    class Look(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            seen["training"] = pl_module.net.head.weight.detach().clone()

        def on_validation_batch_start(self, trainer, pl_module, *_):
            seen["validation"] = pl_module.net.head.weight.detach().clone()

        def on_train_epoch_end(self, trainer, pl_module):
            seen["after"] = pl_module.net.head.weight.detach().clone()

    average = ExponentialMovingAverage(0.9, 5.0)
    trainer(tmp_path, [average, Look()], 1).fit(Classifier())
    assert torch.equal(seen["after"], seen["training"])
    averaged = average._average_model.module.net.head.weight
    assert torch.equal(seen["validation"], averaged)
    assert not torch.equal(seen["validation"], seen["training"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"decay": 1.0}, r"decay=1.0: pass a number in \[0, 1\)"),
        ({"decay": -0.1}, r"decay=-0.1: pass a number in \[0, 1\)"),
        ({"ramp": 0}, "ramp=0: pass a number above 0, the number of updates"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        ExponentialMovingAverage(**arguments)
