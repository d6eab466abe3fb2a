"""Says by name which model a file holds that is not a YOLOv8 detector."""

import re
from collections.abc import Iterable, Sequence

from lightning_prune.detection.weights.conversion import HEAD

ONLY = "only YOLOv8 detection models are read"
KINDS = (
    *("Conv", "Conv", "C2f", "Conv", "C2f", "Conv", "C2f", "Conv", "C2f", "SPPF"),
    *("Upsample", "Concat", "C2f", "Upsample", "Concat", "C2f"),
    *("Conv", "Concat", "C2f", "Conv", "Concat", "C2f", "Detect"),
)
"""Class of each layer of a YOLOv8 detector."""

# The first that fits names the model: later generations keep layers of earlier ones.
_BY_LAYER = (
    ({"Classify"}, "a classification model"),
    ({"Segment", "Segment26", "YOLOESegment", "YOLOESegment26"}, "a segmentation model"),
    ({"Pose", "Pose26"}, "a pose model"),
    ({"OBB", "OBB26"}, "an oriented-box model"),
    ({"WorldDetect", "C2fAttn"}, "a YOLO-World detector"),
    ({"YOLOEDetect"}, "a YOLOE detector"),
    ({"RTDETRDecoder", "HGStem", "AIFI"}, "an RT-DETR detector"),
    ({"A2C2f"}, "a YOLO12 detector"),
    ({"v10Detect", "SCDown", "PSA", "C2fCIB"}, "a YOLOv10 detector"),
    ({"RepNCSPELAN4", "ELAN1", "ADown", "CBFuse"}, "a YOLOv9 detector"),
    ({"C3k2", "C2PSA"}, "a YOLO11 detector"),
    ({"GhostConv", "C3Ghost"}, "a YOLOv8-ghost or YOLOv5u-ghost detector"),
    ({"C3", "Focus", "BottleneckCSP"}, "a YOLOv5 or YOLOv5u detector"),
    ({"Bottleneck"}, "a YOLOv3u detector"),
    ({"MaxPool2d", "ZeroPad2d"}, "a YOLOv3-tiny detector"),
    ({"ConvTranspose2d"}, "a YOLOv6 detector"),
    ({"IDetect", "SP", "RepConv"}, "a YOLOv7 detector"),
)
_BY_HEAD = {
    23: "a YOLO11 or YOLO12",
    24: "a YOLOv5u",
    20: "a YOLOv3-tiny",
    28: "a YOLOv8-p2",
    30: "a YOLOv8-p6",
}


def refuse_other_layers(kinds: Sequence[str], end_to_end: bool = False) -> None:
    """Return which model has these layers, by name, and what differs.

    Args:
        kinds: Class of each layer.
        end_to_end: Whether the head has branches of its own for one-to-one assignment.

    Raises:
        ValueError: they are not those of a YOLOv8 detector.
    """
    place = next((i for i, (a, b) in enumerate(zip(kinds, KINDS, strict=False)) if a != b), None)
    if place is None and len(kinds) == len(KINDS) and not end_to_end:
        return
    known = set(kinds)
    name = next((name for markers, name in _BY_LAYER if markers & known), None)
    if name == "a YOLO11 detector" and end_to_end:
        name = "a YOLO26 detector"
    if name is None and kinds and kinds[-1] == "Detect" and len(kinds) - 1 in _BY_HEAD:
        name = f"{_BY_HEAD[len(kinds) - 1]} detector"
    if place is not None:
        what = f"layer {place} is a {kinds[place]} where YOLOv8 has a {KINDS[place]}"
    elif len(kinds) != len(KINDS):
        what = f"it has {len(kinds)} layers where YOLOv8 has {len(KINDS)}"
    else:
        what = "its head is end-to-end (one-to-one branches)"
    raise ValueError(f"{name or 'another network'} ({what}): {ONLY}")


def refuse_other_names(names: Iterable[str]) -> None:
    """Return the name of the other Ultralytics model that a state dict belongs to.

    Args:
        names: Of its tensors, beginning with ``model.<number>``.

    Raises:
        ValueError: it is not a YOLOv8 detector.
    """
    reason = _other_model(list(names))
    if reason:
        raise ValueError(f"{reason}: {ONLY}")


def _other_model(names: list[str]) -> str | None:
    def has(pattern: str) -> bool:
        return any(re.match(pattern, name) for name in names)

    if not has(r"model\.\d+\."):
        some = ", ".join(names[:3]) or "nothing"
        return f"unknown names ({some})"
    for pattern, name in _BY_NAME:
        if has(pattern):
            return name
    heads = {int(n.split(".")[1]) for n in names if re.match(r"model\.\d+\.cv3\.0\.2\.", n)}
    if heads and HEAD not in heads:
        index = max(heads)
        name = _BY_HEAD.get(index, "a foreign")
        if index == 28 and not has(r"model\.2\.m\.0\."):
            name = "a YOLOv6" if has(r"model\.2\.\d+\.conv\.") else "a YOLOv3u"
        return f"{name} detector (its head is layer {index})"
    return None


_BY_NAME = (
    (r"model\.\d+\.linear\.weight", "a classification model"),
    (r"model\.\d+\.proto\.", "a segmentation model"),
    (r"model\.\d+\.(savpe|reprta)\.", "a YOLOE detector"),
    (r"model\.\d+\.cv4\.\d\.logit_scale", "a YOLO-World detector"),
    (r"model\.\d+\.one2one_", "a YOLOv10 or YOLO26 detector"),
    (r"model\.\d+\.cv4\.\d", "a pose or oriented-box model"),
    (r"model\.\d+\.(enc_output|dec_score_head)\.", "an RT-DETR detector"),
    (r"model\.\d+\.m\.0\.weight", "an anchor-based detector (YOLOv5 or older)"),
    (r"model\.\d+\.cv2\.0\.cv1\.", "a YOLOv9 detector"),
    (r"model\.[12]\.cv[12]\.cv\d\.|model\.1\.cv1\.", "a YOLOv8-ghost detector"),
    (r"model\.\d+\.cv3\.\d\.0\.0\.", "a detector with depthwise class branches (YOLO11 or later)"),
)
