"""Gates: what passes and what does not, on files that are wrong on purpose."""

import numpy as np
import pytest
import torch
from torch import nn

from lightning_prune.detection.detector_judge import DetectorJudge
from lightning_prune.detection.module import DetectionModule
from lightning_prune.export.bundle.output_judge import OutputJudge, relative_error
from lightning_prune.export.bundle.writers import run_of


@pytest.fixture(scope="module")
def classifier() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 4)).eval()


def test_difference_passes_the_network_and_refuses_another(classifier: nn.Module):
    batches = [torch.rand(4, 3, 2, 2) for _ in range(2)]
    judge, run = OutputJudge(classifier, batches), run_of(classifier, batches[0])
    same = judge.exact(run)
    assert same.passed
    assert same.values == {"outputs": 0.0}
    assert (same.images, judge.close(run).passed) == (8, True)
    wrong = judge.exact(lambda arrays: [one * 1.01 for one in run(arrays)])
    assert not wrong.passed
    assert wrong.values["outputs"] == pytest.approx(0.01, abs=1e-3)
    nothing = judge.exact(lambda arrays: [one * np.nan for one in run(arrays)])
    assert not nothing.passed
    assert nothing.to_dict()["values"] == {"outputs": None}


def test_relative_error_is_the_worst_output():
    wanted = [[torch.tensor([3.0, 4.0]), torch.tensor([1.0])]]
    found = [[torch.tensor([3.0, 3.0]), torch.tensor([1.5])]]
    assert relative_error(wanted, found) == pytest.approx(0.5)


def test_accuracy_decides_where_there_are_labels(classifier: nn.Module):
    images = torch.rand(50, 3, 2, 2)
    labels = classifier(images).argmax(1)
    labels[:10] = (labels[:10] + 1) % 4
    judge = OutputJudge(classifier, [images], [labels], accept_loss=0.05)
    run = run_of(classifier, images)
    gate = judge.close(run)
    assert gate.reference == gate.values == {"accuracy": pytest.approx(0.8)}
    turned = judge.close(lambda arrays: [run(arrays)[0][:, ::-1].copy()])
    assert not turned.passed


@pytest.fixture(scope="module")
def detector() -> DetectionModule:
    torch.manual_seed(0)
    module = DetectionModule(2, image_size=64).eval()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.startswith("network.head.classes") and name.endswith("2.bias"):
                parameter += 12
    return module


def test_boxes_and_scores_have_limits_of_their_own(detector: DetectionModule):
    images = torch.rand(2, 3, 64, 64)
    judge, run = DetectorJudge(detector, [images]), run_of(detector, images)
    assert judge.exact(run).passed

    def shifted(arrays, rows, by):
        (found,) = run(arrays)
        found = found.copy()
        found[:, rows] += by
        return [found]

    boxes = judge.exact(lambda arrays: shifted(arrays, slice(0, 4), 0.2))
    assert not boxes.passed
    assert boxes.values["boxes"] == pytest.approx(0.2, abs=1e-3)
    assert judge.exact(lambda arrays: shifted(arrays, slice(0, 4), 0.05)).passed
    assert not judge.exact(lambda arrays: shifted(arrays, slice(4, 6), 0.002)).passed


def test_agreement_with_itself_is_whole_and_with_moved_boxes_is_not(detector: DetectionModule):
    images = torch.rand(2, 3, 64, 64)
    judge, run = DetectorJudge(detector, [images]), run_of(detector, images)
    gate = judge.close(run)
    assert gate.passed
    assert gate.values["agreement"] == pytest.approx(1, abs=1e-6)
    moved = judge.close(lambda arrays: [run(arrays)[0] + np.float32(16)])
    assert not moved.passed


def test_a_network_that_finds_nothing_judges_nothing():
    module = DetectionModule(2, image_size=64).eval()
    judge = DetectorJudge(module, [torch.rand(2, 3, 64, 64)])
    with pytest.raises(ValueError, match="is sure of nothing"):
        judge.close(run_of(module, torch.rand(2, 3, 64, 64)))
