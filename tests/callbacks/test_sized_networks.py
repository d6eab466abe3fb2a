"""Runs of networks whose modules state widths as numbers: attention, windows, recurrence."""

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_prune import criteria, load_pruned, recipes
from lightning_prune.callbacks.channel_masker import ChannelMasker
from lightning_prune.callbacks.physical_pruner import PhysicalPruner
from lightning_prune.callbacks.pruning_report import PruningReport
from lightning_prune.callbacks.sequential_activation_masker import SequentialActivationMasker
from lightning_prune.policies.selection.clusterer import ChannelClusterer
from lightning_prune.surgery.build_groups import build_groups
from tests.plain_stages import plain
from tests.sized_networks import IMAGE, Encoder, Recurrent, Vit, regnet, swin


class Functional(nn.Module):
    """A parameter that no layer holds makes channels that no layer shows."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 4, 4)
        self.mix = nn.Parameter(torch.randn(24, 16) * 0.2)
        self.join, self.head = nn.Linear(24, 12), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.linear(self.stem(x).relu().mean((2, 3)), self.mix).relu()
        return self.head(self.join(x).relu())


class Sequence(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = Recurrent(nn.LSTM, 2, num_layers=2), nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean(1))


class Scaled(Vit):
    """Its scores are divided by the root of the width that heads have."""

    def __init__(self) -> None:
        super().__init__()
        for block in self.blocks:
            block.attention.scale = None


KINDS = {
    "scaled": Scaled,
    "vit": Vit,
    "encoder": Encoder,
    "swin": swin,
    "regnet": regnet,
    "lstm": Sequence,
    "functional": Functional,
}


class Lit(pl.LightningModule):
    """A classifier that knows nothing of pruning."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.save_hyperparameters()
        torch.manual_seed(0)
        self.net = KINDS[kind]()
        self.example_input_array = IMAGE.clone()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), 1e-3)

    def train_dataloader(self) -> DataLoader:
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(32, 3, 32, 32, generator=generator)
        return DataLoader(TensorDataset(images, torch.arange(32) % 4), 16)


def fit(kind, folder, stages, epochs=4, ckpt_path=None):
    module = Lit(kind)
    saver = ModelCheckpoint(folder / "all", "{epoch}", save_top_k=-1)
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", callbacks=[*stages, saver], logger=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(module, ckpt_path=ckpt_path)
    return module, trainer


def channel(folder, **options):
    return recipes.channel(0.5, 1, 3, folder=folder, round_to=1, **options)


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
@pytest.mark.parametrize("kind", ["vit", "encoder", "swin", "regnet", "lstm"])
def test_a_run_is_cut_and_resumes_before_and_after_the_cut_to_the_same_weights(kind, tmp_path):
    stages = channel(tmp_path / "whole")
    whole, trainer = fit(kind, tmp_path / "whole", stages)
    masker = next(stage for stage in stages if isinstance(stage, ChannelMasker))
    assert masker.is_cut
    dense = Lit(kind)
    count = sum(p.numel() for p in whole.parameters())
    assert count < 0.65 * sum(p.numel() for p in dense.parameters())
    held = {id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]}
    assert held == {id(p) for p in whole.parameters()}
    expected = whole.state_dict()
    for epoch in (0, 1, 2):  # dense, masked, cut
        file = tmp_path / "whole" / "all" / f"epoch={epoch}.ckpt"
        again, _ = fit(kind, tmp_path / str(epoch), channel(tmp_path / str(epoch)), ckpt_path=file)
        found = again.state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in found)
    loaded = load_pruned(Lit, tmp_path / "whole" / "all" / "epoch=3.ckpt")
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(loaded.eval()(x), whole.eval()(x))


def test_the_numbers_of_heads_follow_and_the_report_has_a_row_for_each_group(tmp_path):
    stages = channel(tmp_path)
    module, _ = fit("vit", tmp_path, stages)
    report = next(stage for stage in stages if isinstance(stage, PruningReport))
    rows = {row.name: row for row in report.content.layers}
    for number, block in enumerate(module.net.blocks):
        heads = block.attention.num_heads
        assert heads < 4
        assert block.attention.attn_dim == heads * block.attention.head_dim
        assert block.attention.qkv.out_features == 3 * block.attention.attn_dim
        row = rows[f"net.blocks.{number}.attention.qkv"]
        assert (row.channels_before, row.channels_after) == (32, 8 * heads)
        assert row.active_channels == row.channels_after


@pytest.mark.parametrize("ranking", ["local", "global", "isomorphic"])
@pytest.mark.parametrize("round_to", [1, 8])
def test_every_ranking_meets_the_target(ranking, round_to, tmp_path):
    masker = plain(
        ChannelMasker, end_epoch=1, mac_target=0.5, ranking=ranking, round_to=round_to,
        hold_epochs=0,
    )  # fmt: skip
    module, _ = fit("vit", tmp_path, [masker, PhysicalPruner(recalibrate_images=0)], 2)
    assert masker.is_cut
    assert module.net.patch.out_channels % round_to == 0
    assert module.net.blocks[0].mlp[0].out_features % round_to == 0


@pytest.mark.parametrize(
    "criterion",
    [criteria.Fisher, criteria.Taylor, criteria.APoZ, criteria.FPGM, criteria.LAMP,
     criteria.Magnitude, criteria.RandomChoice, criteria.SNP],
)  # fmt: skip
def test_every_criterion_judges_heads(criterion, tmp_path):
    masker = plain(
        ChannelMasker,
        end_epoch=1,
        mac_target=0.5,
        hold_epochs=0,
        criterion=criterion(),
        ranking="local",
    )
    module, _ = fit("vit", tmp_path, [masker, PhysicalPruner(recalibrate_images=0)], 2)
    assert masker.is_cut
    assert min(block.attention.num_heads for block in module.net.blocks) < 4


def test_maps_are_asked_of_layers_that_make_some(tmp_path):
    masker = plain(ChannelMasker, end_epoch=1, criterion=criteria.HRank())
    with pytest.raises(ValueError, match="makes no maps of height and width; leave the layer out"):
        fit("vit", tmp_path, [masker], 2)


@pytest.mark.filterwarnings("ignore:no collection_dataloader")
@pytest.mark.filterwarnings("ignore:classes with fewer than 10 matched objects")
@pytest.mark.filterwarnings("ignore:.* groups separate the classes no better than labels")
def test_what_no_layer_shows_is_left_whole_with_the_reason_in_the_report(tmp_path):
    stages = [
        plain(
            SequentialActivationMasker, matching="all", clusterer=ChannelClusterer(embedding="pca")
        ),
        PhysicalPruner(recalibrate_images=0),
        report := PruningReport(str(tmp_path), latency_rounds=0),
    ]
    module, _ = fit("functional", tmp_path, stages)
    assert tuple(module.net.mix.shape) == (24, module.net.stem.out_channels)
    assert module.net.stem.out_channels < 16
    row = next(row for row in report.content.layers if row.name == "net")
    assert (row.channels_before, row.channels_after, row.status) == (24, 24, "left")
    assert row.reason == "its activations cannot be read: no layer gives its channels as output"


def test_plain_norms_change_the_output_and_the_run_says_so(tmp_path):
    for norms in ("exact", "plain"):
        stages = channel(tmp_path / norms, norms=norms)
        module, _ = fit("vit", tmp_path / norms, stages)
        report = next(stage for stage in stages if isinstance(stage, PruningReport))
        cut = report.content.cut
        assert (type(module.net.norm) is nn.LayerNorm) == (norms == "plain")
        assert ("net.norm" in cut.mixed_by) == (norms == "plain")
        assert (cut.output_difference < 1e-4) == (norms == "exact")


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_heads_and_their_width_are_cut_in_a_run_that_resumes(tmp_path):
    def stages(folder):
        masker = plain(
            ChannelMasker, start_epoch=1, end_epoch=2, mac_target=0.4, attention="both", round_to=1,
            fast_widths=None,
            criterion=criteria.SNP(), gradient_images=16,
        )  # fmt: skip
        return [masker, PhysicalPruner(recalibrate_images=0), PruningReport(str(folder))]

    folder = tmp_path / "whole"
    whole, _ = fit("scaled", folder, built := stages(folder))
    for block in whole.net.blocks:
        own = block.attention
        assert own.num_heads < 4 or own.head_dim < 8
        assert own.qkv.out_features == 3 * own.num_heads * own.head_dim
    assert min(block.attention.head_dim for block in whole.net.blocks) < 8
    names = [row.label for row in built[-1].content.layers]
    assert "net.blocks.0.attention.qkv" in names
    assert "net.blocks.0.attention.qkv:2" in names
    more, _ = fit("scaled", tmp_path / "more", stages(tmp_path / "more"), 5)
    for epoch in (0, 1, 3):  # dense, masked, cut
        file = folder / "all" / f"epoch={epoch}.ckpt"
        other = tmp_path / str(epoch)
        again, _ = fit("scaled", other, stages(other), 5, ckpt_path=file)
        found, expected = again.state_dict(), more.state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in found)


@pytest.mark.filterwarnings("ignore:no collection_dataloader")
@pytest.mark.filterwarnings("ignore:classes with fewer than 10 matched objects")
@pytest.mark.filterwarnings("ignore:.* groups separate the classes no better than labels")
def test_separability_chooses_heads_and_their_width(tmp_path):
    masker = plain(
        SequentialActivationMasker, matching="all", attention="both", mac_target=0.5,
        keep_range=(0.25, 0.75), layers_per_step=None, hold_epochs=0,
        clusterer=ChannelClusterer(embedding="pca"),
    )  # fmt: skip
    module, _ = fit("scaled", tmp_path, [masker, PhysicalPruner(recalibrate_images=0)], 3)
    for block in module.net.blocks:
        own = block.attention
        assert own.num_heads < 4
        assert own.head_dim < 8
        assert own.qkv.out_features == 3 * own.num_heads * own.head_dim


def test_stages_of_different_norms_are_one_clear_error(tmp_path):
    maskers = [
        plain(ChannelMasker, end_epoch=1, norms="plain", layers=["net.patch"]),
        plain(SequentialActivationMasker, layers=["net.blocks.0.mlp.0"]),
    ]
    with pytest.raises(ValueError, match="norms='plain' of ChannelMasker and norms='exact' of Se"):
        fit("vit", tmp_path, maskers, 2)


def test_stages_of_different_attention_are_one_clear_error(tmp_path):
    maskers = [
        plain(ChannelMasker, end_epoch=1, attention="width", layers=["net.patch"]),
        plain(SequentialActivationMasker, layers=["net.blocks.0.mlp.0"]),
    ]
    with pytest.raises(ValueError, match="attention='width' of ChannelMasker and attention='head"):
        fit("vit", tmp_path, maskers, 2)


def test_a_cut_vision_transformer_has_groups_again(tmp_path):
    module, _ = fit("vit", tmp_path, channel(tmp_path))
    groups = build_groups(module, IMAGE)
    heads = module.net.blocks[0].attention.num_heads
    assert groups["net.patch"].channels == module.net.patch.out_channels
    if heads > 1:
        assert groups["net.blocks.0.attention.qkv"].channels == heads
