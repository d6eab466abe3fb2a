import json

import numpy as np
import pytest
import torch

from lightning_prune.detection.network.postprocess import MAX_CANDIDATES, non_maximum_suppression


def load(golden_vectors):
    cases = json.loads((golden_vectors / "13_nms_map.json").read_text())["nms"]
    return cases, np.load(golden_vectors / "13_nms_map.npz")


def rows_in_order(rows):
    return rows[np.lexsort(rows.T[::-1].round(2))]


def test_reproduces_the_reference(golden_vectors):
    cases, arrays = load(golden_vectors)
    assert len(cases) == 15
    for case in cases:
        predictions = torch.tensor(arrays[case["key"].split("|")[0] + "|pred_cxcywh_scores"])
        found = non_maximum_suppression(
            predictions, case["conf"], case["iou"], case["max_det"], case["multi_label"],
            case["agnostic"],
        )  # fmt: skip
        assert [len(rows) for rows in found] == case["n_kept"]
        for image, rows in enumerate(found):
            expected = arrays[f"{case['key']}|img{image}_xyxy_conf_cls"]
            np.testing.assert_allclose(
                rows_in_order(rows.numpy()), rows_in_order(expected), rtol=0, atol=1e-4
            )


def greedy(boxes, scores, labels, iou):
    """Suppress one by one, as the definition says."""
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    kept = []
    for i in np.argsort(-scores, kind="stable"):
        low, high = (
            np.maximum(boxes[i, :2], boxes[kept, :2]),
            np.minimum(boxes[i, 2:], boxes[kept, 2:]),
        )
        inner = np.prod(np.clip(high - low, 0, None), axis=1)
        overlap = inner / (area[i] + area[kept] - inner)
        if not np.any((labels[kept] == labels[i]) & (overlap > iou)):
            kept.append(i)
    return kept


@pytest.mark.parametrize("anchors", [60, 1500])
def test_equals_greedy_suppression(anchors):
    generator = torch.Generator().manual_seed(anchors)
    centre = torch.rand(1, 2, anchors, generator=generator) * 60
    size = torch.rand(1, 2, anchors, generator=generator) * 20 + 5
    scores = torch.rand(1, 3, anchors, generator=generator)
    predictions = torch.cat((centre, size, scores), 1)
    (found,) = non_maximum_suppression(predictions, 0.0, 0.5, max_detections=anchors)
    low, high = (centre - size / 2)[0].T.numpy(), (centre + size / 2)[0].T.numpy()
    best, label = scores[0].max(0)
    kept = greedy(np.concatenate((low, high), 1), best.numpy(), label.numpy(), 0.5)
    np.testing.assert_array_equal(found[:, 5].numpy(), label.numpy()[kept])
    np.testing.assert_allclose(found[:, 4].numpy(), best.numpy()[kept])


def test_scores_come_first_to_last_and_are_limited():
    predictions = torch.rand(2, 6, 400)
    predictions[:, :2] *= 1000
    predictions[:, 2:4] += 1
    for rows in non_maximum_suppression(predictions, 0.1, 0.7, max_detections=20):
        assert rows.shape == (20, 6)
        assert (rows[:, 4].diff() <= 0).all()


def test_nothing_above_the_threshold():
    found = non_maximum_suppression(torch.zeros(3, 7, 50), 0.25)
    assert [rows.shape for rows in found] == [(0, 6)] * 3


def test_keeps_the_most_confident_candidates():
    anchors = MAX_CANDIDATES + 10
    predictions = torch.zeros(1, 5, anchors)
    predictions[0, 0] = torch.arange(anchors) * 10.0
    predictions[0, 2:4] = 4.0
    predictions[0, 4] = torch.linspace(0.5, 0.9, anchors)
    (found,) = non_maximum_suppression(predictions, 0.1, 0.5, max_detections=3)
    torch.testing.assert_close(found[:, 4], predictions[0, 4].flip(0)[:3])


@pytest.mark.parametrize(
    "arguments", [{"confidence": 1.0}, {"confidence": -0.1}, {"iou": 2}, {"max_detections": 0}]
)
def test_refuses_bad_arguments(arguments):
    with pytest.raises(
        ValueError,
        match=rf"{next(iter(arguments))}=.*: pass an? (number in \[0, 1|integer of at least 1)",
    ):
        non_maximum_suppression(torch.zeros(1, 6, 4), **arguments)


def test_refuses_other_shapes():
    with pytest.raises(ValueError, match="batch, 4"):
        non_maximum_suppression(torch.zeros(6, 4))
