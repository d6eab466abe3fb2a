import pytest
import torch

from lightning_prune.observe.classifier import classifier_objects, classifier_samples

LOGITS = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [5.0, 1.0, 2.0]])


def test_every_image_is_one_object_without_a_position():
    samples = classifier_samples((None, torch.tensor([0, 2, 0])), LOGITS)
    assert samples.image.tolist() == [0, 1, 2]
    assert samples.label.tolist() == [0, 2, 0]
    assert samples.correct.tolist() == [True, False, True]
    assert samples.x is samples.y is None
    before = classifier_objects((None, torch.tensor([0, 2, 0])))
    assert torch.equal(before.label, samples.label)
    assert before.correct.all()


@pytest.mark.parametrize(
    ("batch", "outputs"),
    [
        (torch.zeros(3, 4), LOGITS),
        ((None, torch.zeros(3)), LOGITS),
        ((None, torch.zeros(3, 3, dtype=torch.int64)), LOGITS),
        ((None, [0, 1, 2]), LOGITS),
        ((None, torch.tensor([0, 1]), None), LOGITS),
        ((None, torch.tensor([0, 1])), LOGITS),
        ((None, torch.tensor([0, 1, 2])), [LOGITS]),
        ((None, torch.tensor([0, 1, 2])), LOGITS[0]),
    ],
)
def test_anything_else_is_told_what_to_define(batch, outputs):
    with pytest.raises(TypeError, match="define object_samples"):
        classifier_samples(batch, outputs)
