from typing import Any

import numpy as np
import pytest
import torch

from lightning_prune.neural.data.simulated_cells import SimulatedCellsDataModule
from lightning_prune.neural.data.simulated_recording import simulate_recording
from lightning_prune.neural.functional.bits_per_spike import bits_per_spike


def data(**options: Any) -> SimulatedCellsDataModule:
    settings = {"cells": [5, 3], "pixels": 21, "trials": 12, "repeats": 2, "photos": 6}
    return SimulatedCellsDataModule(**{**settings, **options})


def test_known_before_setup() -> None:
    module = data()
    assert module.cells == [5, 3]
    assert (module.frame_rate, module.behavior_dim, module.frame_shape) == (120.0, 42, (21, 21))
    assert module.label_sets == ["eye", "photo"]
    assert module.label_names == ["fixation", "saccade"]
    assert data(labels="photo").label_names == [f"photo {index}" for index in range(6)]


def test_recordings_are_made_once_in_a_process() -> None:
    first, again = data().sessions, data().sessions
    assert all(a is b for a, b in zip(first, again, strict=True))


def test_batches() -> None:
    module = data(batch_size=16)
    inputs, targets = next(iter(module.train_dataloader()))
    assert inputs["stimulus"].shape == (16, 1, 25, 21, 21)
    assert inputs["behavior"].shape == (16, 42)
    assert set(inputs["session"].tolist()) == {0, 1}
    assert not targets["valid"][inputs["session"] == 1, 3:].any()
    assert targets["valid"][inputs["session"] == 1, :3].all()
    assert set(targets["label"].tolist()) <= {0, 1}
    assert (targets["repeat"] == -1).all()
    test = [each["repeat"] for _, each in module.test_dataloader()]
    assert (torch.cat(test) >= 0).sum() == 2 * 2 * 2 * (300 - 24)


@pytest.mark.parametrize("labels", ["eye", "photo"])
def test_a_part_of_the_collection_has_all_classes_and_sessions(labels: str) -> None:
    module = data(labels=labels, batch_size=128)
    inputs, targets = next(iter(module.collection_dataloader()))
    classes = set(module.sessions[0].labels[labels][module.dataset("train").end].tolist())
    assert set(targets["label"].tolist()) == classes
    assert set(inputs["session"].tolist()) == {0, 1}


def test_stimulus_and_behavior_both_tell_about_the_spikes() -> None:
    module = data()
    attainable = module.attainable_bits_per_spike("train")
    assert attainable is not None
    assert 0.3 < attainable < 1.5
    for options in module.recordings:
        recording = simulate_recording(options)
        session, cells = recording.session, recording.population
        gain = np.exp(session.behavior.astype(float) @ cells.gain)
        assert session.rate is not None
        evoked = session.rate * 120 - cells.offset
        without = (evoked / gain + cells.offset) / 120
        without *= session.rate.mean(axis=0) / without.mean(axis=0)
        spikes = torch.tensor(session.spikes)
        both = bits_per_spike(torch.tensor(session.rate), spikes)
        blind = bits_per_spike(torch.tensor(without), spikes)
        assert ((both - blind) > 0.02).all()
        assert (blind > 0.1).all()


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"cells": []}, ValueError, "number of cells of each session"),
        ({"cells": 5}, ValueError, "number of cells of each session"),
        ({"cells": [5, 0]}, ValueError, r"cells=\[5, 0\]: pass the number of cells"),
        ({"pixels": 129}, ValueError, r"pixels=129: pass an integer in \[15, 127\]"),
        ({"trials": 2}, ValueError, r"trials=2: pass an integer in \[3, 100000\]"),
        ({"repeats": 1}, ValueError, r"repeats=1: pass an integer in \[2, 1000\]"),
        ({"photos": 65}, ValueError, r"photos=65: pass an integer in \[1, 64\]"),
        ({"trial_seconds": "long"}, ValueError, "trial_seconds='long': pass a number"),
        (
            {"trial_seconds": 0.1},
            ValueError,
            r"trial_seconds=0.1: pass a number in \[0.5, 60\], seconds",
        ),
    ],
)
def test_errors(options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        data(**options)
