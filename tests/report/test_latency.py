import time

import pytest
import torch
from torch import nn

from lightning_prune.report.latency import measure_latency


class Sleeper(nn.Module):
    def __init__(self, seconds, log):
        super().__init__()
        self.seconds, self.log = seconds, log
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x):
        self.log.append((self.seconds, self.training, torch.is_inference_mode_enabled()))
        time.sleep(self.seconds)
        return self.norm(x)


def test_models_take_turns_in_eval_mode_and_stay_as_they_were():
    log = []
    models = {"slow": Sleeper(0.02, log).train(), "fast": Sleeper(0.0, log)}
    taken = measure_latency(models, torch.randn(4, 3), rounds=3)
    assert [seconds for seconds, _, _ in log] == [0.02] * 2 + [0.0] * 2 + [0.02, 0.0] * 3
    assert not any(training for _, training, _ in log)
    assert all(inference for _, _, inference in log)
    assert models["slow"].training
    assert models["slow"].norm.num_batches_tracked == 0
    assert taken["slow"] >= 20 > taken["fast"]


def test_tuples_and_dicts_are_arguments():
    class Two(nn.Module):
        def forward(self, a, b):
            return a + b

    for example in ((torch.ones(2), torch.ones(2)), {"a": torch.ones(2), "b": torch.ones(2)}):
        assert measure_latency({"two": Two()}, example, rounds=1)["two"] > 0


def test_rounds_are_at_least_one():
    with pytest.raises(ValueError, match="rounds=0: pass at least 1"):
        measure_latency({}, torch.ones(1), rounds=0)
