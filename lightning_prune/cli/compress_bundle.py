"""The bundles that end `python -m lightning_prune compress --format ...`."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from lightning_prune.cli.export import as_ultralytics, example_of
from lightning_prune.cli.export_bundle import make_bundle
from lightning_prune.cli.real_inputs import RealInputs, inputs_of_data, inputs_of_tensors
from lightning_prune.detection.data.yolo_folder import YoloFolderDataModule
from lightning_prune.detection.detector_module import DetectorModule
from lightning_prune.export.bundle.kinds import Kind
from lightning_prune.export.bundle.write_bundle import Bundle


def compressed_bundle(
    module: DetectorModule,
    dense: DetectorModule,
    checkpoint: Path,
    kinds: Sequence[Kind],
    pictures: Sequence[Tensor],
    labelled: YoloFolderDataModule | None,
    accept_loss: float | None,
) -> Bundle:
    """Write the bundle of a compressed detector beside its checkpoint.

    Args:
        module: The small network.
        dense: The one that it was made of: files are to agree with it.
        checkpoint: Of the small network; the folder is named after it.
        kinds: What is written.
        pictures: Batches that the small network was fitted to; every fifth picture was held back.
        labelled: Whose validation images judge instead; None: agreement does.
        accept_loss: See ``DetectorJudge``.
    """
    module, dense = module.cpu().eval(), dense.cpu().eval()
    side = pictures[0].shape[-1]
    example = example_of(module, None, [side])
    options = as_ultralytics(module, example, None, half=False)[1]
    fitted = [image for batch in pictures for image in batch.cpu()]
    inputs: RealInputs = inputs_of_tensors(fitted, options["batch"])
    if labelled is not None:
        real = inputs_of_data(module, labelled, 1, options["batch"])
        inputs.judged, inputs.targets, inputs.data = real.judged, real.targets, real.data
    return make_bundle(
        module, example, checkpoint, checkpoint.with_name(f"{checkpoint.stem}_bundle"),
        [*kinds], options, inputs, None, accept_loss, None if labelled is not None else dense,
    )  # fmt: skip
