"""A small detector and a small classifier to observe, and what a list of all activations gives."""

import numpy as np
import torch
from torch import Tensor, nn

from lightning_prune.functional.objects import ObjectSamples
from tests.networks import conv_bn


class Detector(nn.Module):
    """Three strides, a layer that runs twice, dropout, and batch norms."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8)
        self.down = nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.shared = nn.Conv2d(12, 12, 3, padding=1)
        self.drop = nn.Dropout(0.5)
        self.deep = conv_bn(12, 16, stride=2)
        self.head = nn.Conv2d(16, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(self.stem(x))
        x = self.shared(torch.relu(self.shared(x)))
        return self.head(self.deep(self.drop(x)))


class InPlace(nn.Module):
    """Activations that overwrite the output of the convolution before them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 6, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.relu(self.first(x), inplace=True)
        y = self.second(x)
        y += x
        return y


def detector_batches(count: int = 4, seed: int = 0, classes: int = 3) -> list[tuple]:
    """Return batches (images, objects), one of them without objects."""
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for number in range(count):
        objects = 0 if number == 1 else 6 + number
        draw = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
        batches.append(
            (
                draw(3, 3, 24, 16),
                ObjectSamples(
                    torch.randint(0, 3, (objects,), generator=generator),
                    torch.randint(0, classes, (objects,), generator=generator),
                    draw(objects) < 0.6,
                    draw(objects),
                    draw(objects),
                    0.3 * draw(objects),
                    0.3 * draw(objects),
                ),
            )
        )
    return batches


def samples_of(batch: tuple, _outputs: Tensor) -> ObjectSamples:
    """What a module's ``object_samples`` answers."""
    samples: ObjectSamples = batch[1]
    return samples


def objects_of(batch: tuple) -> ObjectSamples:
    """What a module's ``object_positions`` answers."""
    return batch[1]._replace(correct=torch.ones_like(batch[1].correct))


def forward(model: nn.Module, batch: tuple) -> Tensor:
    """Call a model on the images of a batch."""
    output: Tensor = model(batch[0])
    return output


def gathered(
    model: nn.Module, batches: list[tuple], layer: str, matching: str = "detected"
) -> dict[int, np.ndarray]:
    """Keep every activation in a list, by hooks of our own: class -> (N, C) float64."""
    seen: list[np.ndarray] = []
    # A copy: a later layer may overwrite it.
    handle = model.get_submodule(layer).register_forward_hook(
        lambda _m, _i, output: seen.append(output.detach().clone().numpy().astype(np.float64))
    )
    vectors: dict[int, list[np.ndarray]] = {}
    model.eval()
    with torch.no_grad():
        for images, samples in batches:
            seen.clear()
            model(images)
            for m in range(len(samples.label)):
                if matching == "detected" and not samples.correct[m]:
                    continue
                for output in seen:
                    image = output[int(samples.image[m])]
                    if samples.x is None:
                        vector = image.mean(axis=(1, 2)) if image.ndim == 3 else image
                    else:
                        height, width = image.shape[1:]
                        row = min(int(np.floor(np.float64(samples.y[m]) * height)), height - 1)
                        column = min(int(np.floor(np.float64(samples.x[m]) * width)), width - 1)
                        vector = image[:, row, column]
                    vectors.setdefault(int(samples.label[m]), []).append(vector)
    handle.remove()
    return {label: np.stack(rows) for label, rows in vectors.items()}


def assert_moments(found, expected: dict[int, np.ndarray], repeats: int = 1) -> None:
    """Compare class moments with NumPy's of the lists."""
    for label, rows in expected.items():
        assert found.count[label] == len(rows) * repeats
        for name, value in (
            ("mean", rows.mean(0)),
            ("variance", rows.var(0)),
            ("mean_abs", np.abs(rows).mean(0)),
        ):
            mine = getattr(found, name)[:, label].numpy()
            np.testing.assert_allclose(mine, value, rtol=1e-6, atol=1e-9, err_msg=name)
    assert found.count.sum() == repeats * sum(len(rows) for rows in expected.values())
