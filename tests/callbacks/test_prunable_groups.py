"""What can be known before the first batch is said before the first batch."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from lightning_prune.callbacks import _prunable_groups
from lightning_prune.callbacks.channel_masker import ChannelMasker
from lightning_prune.callbacks.channel_regularizer import ChannelRegularizer
from lightning_prune.callbacks.physical_pruner import PhysicalPruner
from lightning_prune.callbacks.sequential_activation_masker import SequentialActivationMasker
from lightning_prune.policies.selection.clusterer import ChannelClusterer
from tests.callbacks.classifiers import Classifier, Foreign, trainer
from tests.plain_stages import plain


class Projecting(Foreign):
    """Its loss takes the features through a projection that no forward pass uses."""

    def __init__(self):
        super().__init__()
        self.projection = nn.Linear(16, 3)

    def training_step(self, batch, batch_idx):
        features = self.net.deep(self.net.stem(batch[0])).mean((2, 3))
        self.log("norm", features.norm())
        return super().training_step(batch, batch_idx) + self.projection(features).square().mean()


class Softened(Foreign):
    def forward(self, x):
        return self.net.head(self.net.deep(self.net.stem(x).softmax(1)).mean((2, 3)))


def masker(**options):
    return plain(
        ChannelMasker, start_epoch=1, end_epoch=2, pruning_ratio=0.5, ranking="local", **options
    )


def test_a_projection_of_the_loss_keeps_its_source_whole_and_the_rest_is_cut(tmp_path):
    model = Projecting()
    run = trainer(tmp_path, [masker(), PhysicalPruner()], 4)
    with pytest.warns(UserWarning, match=r"1 group .* net\.deep\.0: training_step fails once its"):
        run.fit(model)
    assert run.current_epoch == 4
    assert model.net.deep[0].out_channels == 16
    assert (model.net.stem[0].out_channels, model.net.inner[0].out_channels) == (4, 6)


def test_a_layer_that_is_asked_for_and_cannot_be_cut_is_an_error_before_training(tmp_path):
    run = trainer(tmp_path, [masker(layers=["net.stem.0"]), PhysicalPruner()], 4)
    with pytest.raises(ValueError, match=r"net\.stem\.0' cannot be pruned: _softmax runs over"):
        run.fit(Softened())
    assert run.global_step == 0


def test_where_nothing_remains_it_is_one_error_before_training(tmp_path):
    class Nothing(Foreign):
        def forward(self, x):
            maps = self.net.stem[0](x).view(-1, 8 * 64)
            return F.linear(maps, torch.ones(4, 8 * 64, device=x.device))

    run = trainer(tmp_path, [masker(), PhysicalPruner()], 4)
    with (
        pytest.warns(UserWarning, match="because a trial cut failed: net.stem.0"),
        pytest.raises(ValueError, match="no layer of Nothing can be pruned"),
    ):
        run.fit(Nothing())
    assert run.global_step == 0


def test_all_stages_share_one_trial_and_random_states_are_left_alone(tmp_path, monkeypatch):
    trials = []
    original = _prunable_groups.try_groups

    def count(*args, **options):
        trials.append(options["step"] is not None)
        return original(*args, **options)

    monkeypatch.setattr(_prunable_groups, "try_groups", count)
    model = Classifier()
    stages = [ChannelRegularizer(reg=1e-3), masker(), PhysicalPruner()]
    trainer(tmp_path, stages, 4).fit(model)
    assert trials == [False, True]

    def drawn(stages):
        torch.manual_seed(5)
        states = []
        model = Classifier()
        model.on_train_batch_start = lambda *_: states.append(torch.get_rng_state())
        trainer(tmp_path, stages, 4).fit(model)
        return states[0]

    assert torch.equal(drawn([]), drawn([masker(), PhysicalPruner()]))


class Labelled(Dataset):
    """Batches are dicts; there is no example input."""

    def __init__(self):
        self.image = torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return len(self.image)

    def __getitem__(self, index):
        return {"image": self.image[index], "label": index % 4, "name": f"{index}.jpg"}


class OfDicts(Foreign):
    collection_dataloader = None

    def __init__(self):
        super().__init__(example=False)

    def forward(self, image, mask=None):
        return self.net(image if mask is None else image * mask)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch["image"]), batch["label"])

    def validation_step(self, batch, batch_idx):
        pass

    def train_dataloader(self):
        return DataLoader(Labelled(), 8)


class WithLabels(OfDicts):
    """Its forward pass takes the whole batch and returns the loss."""

    def forward(self, batch):
        return {"loss": F.cross_entropy(self.net(batch["image"]), batch["label"])}

    def training_step(self, batch, batch_idx):
        return self(batch)["loss"]


@pytest.mark.parametrize("kind", [OfDicts, WithLabels])
def test_batches_that_are_dicts_give_the_example(tmp_path, kind):
    model = kind()
    trainer(tmp_path, [masker(recalibrate_images=8), PhysicalPruner()], 4).fit(model)
    assert model.net.deep[0].out_channels == 8


def test_a_backend_that_is_not_installed_is_said_before_training(tmp_path, monkeypatch):
    def missing(name):
        raise ImportError(f"no module named {name}")

    monkeypatch.setattr(
        "lightning_prune.functional.selection.sklearn_extra_pam.importlib.import_module", missing
    )
    clusterer = ChannelClusterer(backend="sklearn_extra")
    stage = plain(SequentialActivationMasker, start_epoch=1, clusterer=clusterer)
    run = trainer(tmp_path, [stage, PhysicalPruner()], 4)
    with pytest.raises(ValueError, match=r"clusterer\.backend='sklearn_extra': .*pip install"):
        run.fit(Classifier())
    assert run.global_step == 0


def test_a_training_step_by_hand_is_left_alone(tmp_path):
    class ByHand(Foreign):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch, batch_idx):
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(F.cross_entropy(self(batch[0]), batch[1]))
            optimizer.step()

    model = ByHand()
    run = trainer(tmp_path, [masker(), PhysicalPruner()], 4)
    run.fit(model)
    assert model.net.deep[0].out_channels == 8
