"""What a plain loop shares with ChannelMasker: holding, refits, norms, gradients, retries."""

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader

from lightning_prune.callbacks.channel_masker import ChannelMasker
from lightning_prune.loop.pruning import Pruning
from lightning_prune.policies.criteria.apoz import APoZ
from lightning_prune.policies.criteria.fisher import Fisher
from lightning_prune.policies.criteria.group_norm import GroupNorm
from lightning_prune.policies.criteria.reconstruction import Reconstruction
from lightning_prune.policies.criteria.taylor import Taylor
from tests.callbacks.classifiers import Classifier, patterns, trainer
from tests.loop.plain import channel_pruning, masked, write
from tests.plain_stages import plain

ONE_SHOT = {
    "is_prune": True, "start_epoch": 0, "end_epoch": 1, "input_shape": [1, 1, 8, 8],
    "global_prune_rate": 0.5, "gradient_images": 96,
}  # fmt: skip


class AfterTheMask(Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 0:
            self.state = {name: v.clone() for name, v in pl_module.state_dict().items()}


@pytest.mark.parametrize("images", [0, 96])
@pytest.mark.parametrize("measured", [False, True])
@pytest.mark.parametrize("criterion", [GroupNorm, Taylor, Fisher, APoZ, Reconstruction])
def test_a_loop_does_what_the_callback_does(criterion, measured, images, tmp_path):
    """Oracle: ChannelMasker on the same weights and images; plan, refits and norms are equal."""
    if measured and criterion not in (GroupNorm, Reconstruction):
        pytest.skip("a ranking needs nothing of a criterion")
    stage = plain(
        ChannelMasker,
        0, 1, pruning_ratio=0.5, criterion=criterion(), gradient_images=96,
        compensate_images=images, recalibrate_images=images,
        **{"ranking": "measured"} if measured else {},
    )  # fmt: skip
    after = AfterTheMask()
    trainer(tmp_path, [stage, after], 2, limit_train_batches=1).fit(Classifier())

    model = Classifier().train()
    keys = {"compensate_images": images, "recalibrate_images": images}
    keys |= {"measured": True} if measured else {}
    method = {"pruning_method": f"{criterion.__name__}Importance"}
    pruner = Pruning(
        model,
        write(tmp_path, ONE_SHOT | keys | method),
        batches=DataLoader(patterns(96, 1), batch_size=32),
        loss_fn=lambda model, batch: model.training_step(batch, 0),
    )
    before = [p.grad for p in model.parameters()]
    pruner.prune(model, 0)
    assert [p.grad for p in model.parameters()] == before
    plan = pruner.channel_pruner.plan
    assert {n: k.tolist() for n, k in plan.keep.items()} == {
        decision.group: decision.keep.tolist() for decision in stage.decisions
    }
    for name, value in model.state_dict().items():
        assert torch.equal(value, after.state[name]), name


@pytest.mark.parametrize("hold", [0, 1, 3])
def test_masks_are_held_before_the_cut(hold, tmp_path):
    pruner = channel_pruning(tmp_path, end_epoch=2, hold_epochs=hold)
    cut = []
    for epoch in range(6):
        pruner.prune(pruner._model, epoch)
        cut.append(pruner.channel_pruner.done)
    assert cut.index(True) == 1 + hold


def test_importances_that_are_not_finite_are_tried_again(tmp_path):
    pruner = channel_pruning(tmp_path, end_epoch=2)
    model = pruner._model
    weight = model.b1[0].weight
    fine = weight.detach().clone()
    with torch.no_grad():
        weight[0] = torch.nan
    with pytest.warns(UserWarning, match=r"nothing is masked: the importance .* tries again"):
        pruner.prune(model, 1)
    pruner.prune(model, 1)  # once an epoch
    assert masked(pruner) == 0
    with torch.no_grad():
        weight.copy_(fine)
    pruner.prune(model, 2)
    assert masked(pruner) > 0
    pruner.prune(model, 3)
    assert pruner.channel_pruner.done


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"recalibrate_images": 8}, r"recalibrate_images=8 needs training batches: pass Pruning"),
        ({"compensate_images": 8}, r"compensate_images=8 needs training batches: pass Pruning"),
        (
            {"pruning_method": "FisherImportance"},
            "Fisher needs gradients of the loss of single batches, .* `batches` and `loss_fn`",
        ),
        (
            {"pruning_method": "HRankImportance"},
            "HRank needs activations of layers at training images, .* `batches`",
        ),
        ({"measured": True}, r"measured=1 needs training batches: pass Pruning"),
        (
            {"pruning_method": "ReconstructionImportance"},
            "Reconstruction needs what consumers lose without channels, .* `batches`",
        ),
        ({"hold_epochs": -1}, "hold_epochs=-1"),
    ],
)
def test_what_is_missing_is_said_at_once(keys, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        channel_pruning(tmp_path, **keys)
