"""What tools for Ultralytics models want to know about an exported detector."""

from lightning_prune.detection.detector_module import DetectorModule
from lightning_prune.detection.network.network import LARGEST_STRIDE


def ultralytics_metadata(
    module: DetectorModule,
    image_size: tuple[int, int],
    batch: int | None = None,
    half: bool = False,
    channels: int | None = None,
) -> dict[str, str]:
    """Return the properties that Ultralytics reads from a model file, keys and values as text.

    Args:
        module: The detector.
        image_size: Height and width of its images in pixels.
        batch: Number of images the file takes at once, all of that size; None: any number, of
            any size that the strides divide.
        half: Whether the file takes images in 16 bits.
        channels: Of an image; None: those that the detector was built for.

    >>> from lightning_prune import DetectionModule
    >>> found = ultralytics_metadata(DetectionModule(2, names=["cat", "dog"]), (320, 320))
    >>> found["task"], found["names"], found["imgsz"]
    ('detect', "{0: 'cat', 1: 'dog'}", '[320, 320]')
    """
    classes = module.hparams["num_classes"]
    names = module.hparams["names"] or [f"class{index}" for index in range(classes)]
    channels = module.hparams["in_channels"] if channels is None else channels
    arguments = {"batch": batch or 1, "half": half, "dynamic": batch is None, "nms": False}
    return {
        "description": f"{_kind(module)} exported by lightning_prune",
        "task": "detect",
        "stride": str(LARGEST_STRIDE),
        "batch": str(batch or 1),
        "imgsz": str(list(image_size)),
        "names": str(dict(enumerate(names))),
        "channels": str(channels),
        "args": str(arguments),
        "end2end": "False",
    }


def _kind(module: DetectorModule) -> str:
    size = module.hparams.get("size")
    return f"YOLOv8{size}" if size else type(module.get_submodule("network")).__name__
