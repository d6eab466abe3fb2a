"""The overrides that make any run of the command line small enough for a test."""

# Two optimizer steps of small pictures an epoch, one epoch dense, one masked and one cut.
TINY = [
    "data.train_images=32",
    "data.val_images=8",
    "data.test_images=8",
    "data.image_size=64",
    "dense_epochs=1",
    "recovery_epochs=2",
    "trainer.accelerator=cpu",
    "trainer.limit_train_batches=2",
    "trainer.limit_val_batches=1",
    "trainer.limit_test_batches=1",
    "trainer.num_sanity_val_steps=0",
]
# The same for data in a folder, whose size no override can change.
TINY_FOLDER = [
    "data.image_size=64",
    "data.batch_size=4",
    "data.num_workers=0",
    *(word for word in TINY if not word.startswith("data.")),
]
# The same for neural responses: few cells, a small movie, short trials.
TINY_NEURAL = [
    "data.cells=[4,3]",
    "data.pixels=15",
    "data.trials=5",
    "data.repeated_trials=1",
    "data.repeats=2",
    "data.trial_seconds=0.6",
    "data.photos=2",
    "data.batch_size=16",
    *(word for word in TINY if not word.startswith("data.")),
]
# The same for class folders and networks of timm: a small one, few images of a folder.
TINY_CLASSES = [
    "model.name=convnext_atto",
    "data.image_size=32",
    "data.batch_size=4",
    "data.num_workers=0",
    *(word for word in TINY if not word.startswith("data.")),
]
# After two steps a model finds no object yet: channels are chosen by all of them, in the
# quickest embedding and in one step.
TINY_PRUNING = [
    "pruning.masker.matching=all",
    "pruning.masker.clusterer.embedding=pca",
    "pruning.masker.layers_per_step=null",
    "pruning.masker.hold_epochs=1",
]
# Without what reports cost; they have tests of their own.
NO_COST = ["pruning.report.latency_rounds=0", "pruning.report.figures=false"]
# A few layers, each at its own knee.
FEW_LAYERS = ["pruning.masker.layers=[network.backbone.p5.*]", "pruning.masker.mac_target=null"]
# The same for recipes that mask by a ratio: one step, over a few layers.
FEW_BY_RATIO = [
    "pruning.masker.layers=[network.backbone.p5.*]",
    "pruning.masker.mac_target=null",
    "pruning.masker.pruning_ratio=0.5",
    *NO_COST,
]
# What makes each recipe small, by its name.
TINY_RECIPES = {
    "sequential_activation": [*TINY_PRUNING, *FEW_LAYERS, *NO_COST],
    "separability": [*TINY_PRUNING, *FEW_LAYERS, *NO_COST],
    "channel": FEW_BY_RATIO,
    "channel_and_slice": FEW_BY_RATIO,
    "bn_scale": FEW_BY_RATIO,
    "magnitude": FEW_BY_RATIO,
    "compress": [*FEW_BY_RATIO, "pruning.label_free_steps.steps=4"],
    "slice": [],
    "neural": FEW_BY_RATIO,
    # All channels: in so small a run none is dead.
    "channel_reset": [
        "pruning.channel_resetter.every_n_epochs=1",
        "pruning.channel_resetter.end_epoch=null",
        "pruning.channel_resetter.which=all",
        "pruning.channel_resetter.min_batches=1",
    ],
}
# The same on the neural-response model, whose layers have other names.
_FEW_NEURAL = [
    "pruning.masker.layers=[network.modulator.gru.*,network.convnet.blocks.1.*]",
    "pruning.masker.mac_target=null",
]
TINY_NEURAL_RECIPES = {
    "neural": [*FEW_BY_RATIO, *_FEW_NEURAL],
    "channel": [*FEW_BY_RATIO, *_FEW_NEURAL],
    "sequential_activation": [*TINY_PRUNING, *_FEW_NEURAL],
}
# The same on ConvNeXt.
_FEW_OF_TIMM = ["pruning.masker.layers=[network.stages.3.*]", "pruning.masker.mac_target=null"]
TINY_CLASS_RECIPES = {
    "channel": [*FEW_BY_RATIO, *_FEW_OF_TIMM],
    "sequential_activation": [*TINY_PRUNING, *_FEW_OF_TIMM],
}
# The same on a U-Net.
_FEW_OF_UNET = ["pruning.masker.layers=[network.decoder.*]", "pruning.masker.mac_target=null"]
TINY_MASK_RECIPES = {
    "channel": [*FEW_BY_RATIO, *_FEW_OF_UNET],
    "sequential_activation": [*TINY_PRUNING, *_FEW_OF_UNET],
}
# What such small runs are warned about, rightly: few objects, and a resume in a new folder.
TINY_WARNINGS = [
    "ignore:.*in eval mode at the start of training",  # a frozen core
    "ignore:classes with fewer than 10 matched objects",
    "ignore:The dirpath has changed from",
    "ignore:Checkpoint directory .* exists and is not empty",
    "ignore:.* cells had no spikes in the data that were evaluated",
    "ignore:.* groups separate the classes no better than labels dealt out at random",
]
# Arguments that make `main` of each file in examples/ small enough.
EXAMPLES = {
    "prune_detector": {
        "dense_epochs": 1,
        "recovery_epochs": 8,
        "image_size": 64,
        "train_images": 16,
        "val_images": 4,
        "test_images": 4,
    },
    "prune_classifier": {"dense_epochs": 2, "recovery_epochs": 3},
    "prune_transformer": {"dense_epochs": 4, "recovery_epochs": 4},
    "prune_openretina": {"dense": 2, "recovery": 4, "frames": 1000},
    "prune_by_norm": {"dense_epochs": 2, "recovery_epochs": 4},
    "listen_to_pruning": {"dense_epochs": 2, "epochs": 4},
    "write_digit_folder": {"images": 400},
    "periodic_reset": {"epochs": 5, "lr": 0.1},
    "adaptive_reset": {"epochs": 3, "lr": 0.1},
    "monitor_usage": {"epochs": 2, "lr": 0.1},
}
# The same for the programs in README and docs: what is written there -> what the test runs.
SHORTER = {
    'recipe="channel", mac_target=0.5': (
        'mac_target=None, pruning_ratio=0.5, layers=["network.backbone.p5.*"], dense_epochs=1, '
        'recovery_epochs=2, trainer={"limit_train_batches": 2, "limit_val_batches": 1}'
    ),
    "mac_target=0.5, dense_epochs=12, recovery_epochs=12": (
        'mac_target=None, pruning_ratio=0.5, layers=["network.backbone.p5.*"], dense_epochs=1, '
        "recovery_epochs=2"
    ),
    "Trainer(max_epochs=24": "Trainer(max_epochs=3, limit_train_batches=2, limit_val_batches=1",
    "DetectionModule(num_classes=10)": "DetectionModule(num_classes=10, image_size=64)",
    "DigitsDetectionDataModule()": (
        "DigitsDetectionDataModule(image_size=64, train_images=32, val_images=8, batch_size=8)"
    ),
}
