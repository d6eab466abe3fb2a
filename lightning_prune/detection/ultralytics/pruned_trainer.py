"""The trainer of a pruned network, for `YOLO(file).train(trainer=pruned_trainer)`."""

from typing import Any


def pruned_trainer(overrides: Any = None, _callbacks: Any = None, **options: Any) -> Any:
    """Return the trainer of a pruned network's task: ``YOLO(file).train(trainer=pruned_trainer)``.

    Args:
        overrides: Their settings, as ``YOLO.train`` passes them.
        _callbacks: Their callbacks.
        options: What else their trainers take.

    Raises:
        ValueError: the task has none.
    """
    settings = dict(overrides or {})
    task = settings.get("task", "detect")
    # Their package is imported when one is asked for.
    from lightning_prune.detection.ultralytics import trainer

    kinds = {
        "detect": trainer.PrunedDetectionTrainer,
        "segment": trainer.PrunedSegmentationTrainer,
    }
    if task not in kinds:
        raise ValueError(f"task={task!r}: pruned networks {' or '.join(kinds)}")
    transformer = "rtdetr" in str(settings.get("model", "")).lower()
    kind = trainer.PrunedRTDETRTrainer if transformer else kinds[task]
    return kind(overrides=overrides, _callbacks=_callbacks, **options)
