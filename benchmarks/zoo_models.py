"""Library models by name, ``library:model``, each with a small input: what the zoo prunes.

    from zoo_models import make
    model, example = make("timm:resnet18")

All have random weights: nothing is downloaded. Importing this file imports none of the libraries,
and whose library is missing ends with ``ModuleNotFoundError``.
"""

import importlib
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Made = tuple[nn.Module, Any]

# A library a paragraph: its prefix, then the names of its models.
_ZOO = """
tv: alexnet convnext_base mobilenet_v3_small shufflenet_v2_x0_5 swin_t convnext_tiny googlenet
    vit_b_32 squeezenet1_0 efficientnet_b0 regnet_y_400mf densenet121 inception_v3 maxvit_t
    mnasnet0_5 swin_v2_t mobilenet_v2
timm: resnet18 resnet26t resnetaa50 resnetblur18 ecaresnet26t resnet50_gn resnext50_32x4d
    seresnet50 resnetv2_50d_frn lcnet_050 efficientnet_lite0 efficientnet_es mnasnet_small
    mobilenetv2_035 convnextv2_atto regnetz_005 nf_resnet26 cs3darknet_s dla34 hrnet_w18_small
    repvgg_a0 regnetz_b16 fastvit_sa12 ghostnetv3_050 poolformer_s12 efficientformer_l1
    coatnet_rmlp_nano_rw_224 mixer_s32_224 gmixer_12_224 deit_tiny_distilled_patch16_224
    twins_svt_small starnet_s050 davit_tiny dpn48b legacy_seresnet18 xception41 test_vit
    test_vit4 swin_tiny_patch4_window7_224 mobilevitv2_050 pit_ti_224 tnt_s_patch16_224
    rexnet_100 hgnet_tiny lcnetv2_small fasternet_t0 efficientvit_m0 crossvit_9_240
    coat_lite_tiny lambda_resnet26t naflexvit_base_patch16_gap resnet10t mobilenetv3_small_050
    fbnetv3_b efficientnetv2_rw_t efficientnet_b0_gn spnasnet_100 convnext_atto regnetx_002
    regnetv_040 nf_regnet_b0 darknet17 dla46x_c vovnet39a mobileone_s0 eca_resnet33ts
    ghostnet_050 levit_128s poolformerv2_s12 efficientformerv2_s0 maxvit_rmlp_pico_rw_256
    resmlp_12_224 xcit_nano_12_p16_224 deit3_small_patch16_224 tiny_vit_5m_224
    inception_next_atto gcvit_xxtiny res2net50_26w_4s legacy_seresnext26_32x4d inception_v3
    test_vit2 vit_relpos_small_patch16_224 swinv2_tiny_window8_256 mvitv2_tiny visformer_tiny
    shvit_s1 rexnetr_100 hgnetv2_b0 lowformer_b0 efficientvim_m1 densenetblur121d convit_tiny
    botnet26t_256
ul: yolov5n yolov8n yolov8n-seg yolov8n-pose yolov8n-cls yolov8n-obb yolov9t yolov10n yolo11n
    yolo12n rtdetr-l yolov6n yolov3-tiny yolov8n-ghost
smp: Unet UnetPlusPlus FPN DeepLabV3 DeepLabV3Plus MAnet Linknet PAN PSPNet Segformer UPerNet
hf: vit bert distilbert gpt2 llama whisper_encoder wav2vec2 detr segformer convnext
tvdet: fasterrcnn_mobilenet_v3_large_320_fpn fasterrcnn_resnet50_fpn retinanet_resnet50_fpn
    ssd300_vgg16 ssdlite320_mobilenet_v3_large fcos_resnet50_fpn keypointrcnn_resnet50_fpn
tvseg: fcn_resnet50 fcn_resnet50+aux deeplabv3_resnet50 lraspp_mobilenet_v3_large
tvvid: r3d_18 mc3_18 r2plus1d_18 swin3d_t
tvq: resnet18 resnet50 googlenet inception_v3
tvflow: raft_small
"""


def _read(text: str) -> dict[str, tuple[str, ...]]:
    """Return library -> names of its models."""
    found: dict[str, tuple[str, ...]] = {}
    library = ""
    for word in text.split():
        if word.endswith(":"):
            library = word[:-1]
        else:
            found[library] = (*found.get(library, ()), word)
    return found


NAMES = _read(_ZOO)
TITLES = {
    "tv": "torchvision, classifiers",
    "timm": "timm",
    "ul": "Ultralytics",
    "smp": "segmentation_models_pytorch",
    "hf": "transformers",
    "tvdet": "torchvision, detectors whole",
    "tvseg": "torchvision, segmentation",
    "tvvid": "torchvision, video",
    "tvq": "torchvision, quantizable",
    "tvflow": "torchvision, optical flow",
    "toy": "toys",
}


def images(size: int, *lead: int) -> Tensor:
    """Return a batch of one image, or of what ``lead`` says instead of one RGB image."""
    return torch.zeros(*(lead or (1, 3)), size, size)


class Adapted(nn.Module):
    """A model whose call is put into tensors in, tensors out."""

    def __init__(self, model: nn.Module, run: Callable[..., Any]) -> None:
        super().__init__()
        self.model, self.run = model, run

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model as ``run`` does."""
        return self.run(self.model, *args, **kwargs)


# --- torchvision ---------------------------------------------------------------------------------


def torchvision_classifier(name: str) -> Made:
    """Return a classifier of ten classes."""
    from torchvision import models

    options: dict[str, Any] = {"weights": None, "num_classes": 10}
    size = {"alexnet": 96, "inception_v3": 96, "maxvit_t": 224}.get(name, 64)
    if name in ("googlenet", "inception_v3"):
        options |= {"init_weights": False, "aux_logits": False}
    if name.startswith("vit"):
        size = 56 if name.endswith("14") else 64
        options["image_size"] = size
    return models.get_model(name, **options), images(size)


def torchvision_segmentation(name: str) -> Made:
    """Return a segmentation model; ``NAME+aux`` has its auxiliary head."""
    from torchvision.models import segmentation

    name, _, aux = name.partition("+")
    options: dict[str, Any] = {"aux_loss": True} if aux else {}
    maker = getattr(segmentation, name)
    return maker(weights=None, weights_backbone=None, num_classes=5, **options), images(64)


def torchvision_detector(name: str) -> Made:
    """Return a detector; ``NAME/backbone`` and ``NAME/dense`` are these parts of it.

    ``dense``: backbone and dense heads without the decoding, what training sees.
    """
    from torchvision.models import detection

    name, _, part = name.partition("/")
    options: dict[str, Any] = {"num_classes": 2 if "keypoint" in name else 4}
    if not name.startswith("ssd"):
        options |= {"min_size": 96, "max_size": 96}
    model = getattr(detection, name)(weights=None, weights_backbone=None, **options)
    size = {"ssd300_vgg16": 300, "ssdlite320_mobilenet_v3_large": 320}.get(name, 96)
    if part == "backbone":
        return model.backbone, images(128 if size == 320 else size)
    if part == "dense":
        head = model.rpn.head if hasattr(model, "rpn") else model.head
        both = nn.ModuleDict({"backbone": model.backbone, "head": head})
        return Adapted(both, lambda m, x: m["head"](list(m["backbone"](x).values()))), images(size)
    return model, ([images(size)[0]],)


def torchvision_video(name: str) -> Made:
    """Return a classifier of clips."""
    from torchvision.models import video

    frames, size = (16, 224) if name.startswith("mvit") else (4, 64) if "swin" in name else (4, 48)
    frames, size = (16, 64) if name == "s3d" else (frames, size)
    return getattr(video, name)(weights=None, num_classes=5), images(size, 1, 3, frames)


def torchvision_quantizable(name: str) -> Made:
    """Return the float version of a quantizable classifier."""
    from torchvision.models import quantization

    options: dict[str, Any] = {"weights": None, "quantize": False, "num_classes": 10}
    if name in ("googlenet", "inception_v3"):
        options |= {"init_weights": False, "aux_logits": False}
    size = 96 if name == "inception_v3" else 64
    return getattr(quantization, name)(**options), images(size)


def torchvision_flow(name: str) -> Made:
    """Return a network of optical flow with two updates."""
    from torchvision.models import optical_flow

    model = getattr(optical_flow, name)(weights=None)
    run = Adapted(model, lambda m, a, b: m(a, b, num_flow_updates=2)[-1])
    return run, (images(128), images(128))


# --- timm ----------------------------------------------------------------------------------------

# Of a fixed size, but small ones can be asked for.
RESIZABLE = ("deit", "vit_tiny_p", "vit_small_p", "beit_base", "mixer", "cait", "test_vit")
FIXED = {"tnt_s_patch16_224"}
OF_96 = ("inception", "nasnet", "xception")
# At 64 pixels their last maps would be single pixels, or smaller than a window.
OF_128 = re.compile(
    "edgenext|fastvit|levit|poolformer|swiftformer|mobilevit|hiera|xcit|cvt|"
    "vit|former|nest|pvt|twins|davit|coat|focalnet|hgnet|mambaout|halonet|"
    "lambda|botnet|halonext|sequencer|csatv2|cpubone|efficientvim|volo"
)


def timm_model(name: str) -> Made:
    """Return a classifier of timm with ten classes."""
    import timm

    config = timm.get_pretrained_cfg(name)
    channels, native = (3, 224) if config is None else config.input_size[:2]
    options: dict[str, Any] = {"pretrained": False, "num_classes": 10}
    if name in FIXED or getattr(config, "fixed_input_size", False):
        if native >= 160 and any(part in name for part in RESIZABLE):
            for size in (64, 96, 128):
                try:
                    return timm.create_model(name, img_size=size, **options), images(
                        size, 1, channels
                    )
                except Exception:  # the size does not fit its patches
                    continue
        size = native
    elif native % 32:
        size = native
    elif OF_128.search(name):
        size = 128
    else:
        size = 96 if any(part in name for part in OF_96) else 64
    return timm.create_model(name, **options), images(size, 1, channels)


# --- Ultralytics ---------------------------------------------------------------------------------


def ultralytics_model(name: str) -> Made:
    """Return a network of Ultralytics by the name of its YAML file (AGPL: used, never read)."""
    tasks = importlib.import_module("ultralytics.nn.tasks")
    kinds = {
        "rtdetr": "RTDETRDetectionModel",
        "-seg": "SegmentationModel",
        "-pose": "PoseModel",
        "-cls": "ClassificationModel",
        "-obb": "OBBModel",
    }
    kind = next((kinds[part] for part in kinds if part in name), "DetectionModel")
    model = getattr(tasks, kind)(f"{name}.yaml", nc=4, verbose=False)
    return model, images(64 if "-cls" in name else 128)


# --- segmentation_models_pytorch -----------------------------------------------------------------


def segmentation_model(name: str) -> Made:
    """Return a decoder of segmentation_models_pytorch, ``DECODER`` or ``DECODER/ENCODER``."""
    library = importlib.import_module("segmentation_models_pytorch")
    decoder, _, encoder = name.partition("/")
    maker = getattr(library, decoder)
    model = maker(encoder or "resnet18", encoder_weights=None, classes=3)
    return model, images(128 if decoder == "PAN" else 64)


# --- transformers --------------------------------------------------------------------------------

WIDTHS = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
TEXT = {"vocab_size": 99, **WIDTHS}
DECODER = {**TEXT, "num_key_value_heads": 2, "max_position_embeddings": 32, "use_cache": False}
PATCHES = {"image_size": 32, "patch_size": 8}
STAGES = {"embedding_size": 16, "hidden_sizes": [16, 32, 48, 64], "depths": [1] * 4}
WHISPER = "models.whisper.modeling_whisper.WhisperEncoder"
# Name -> class of the model, its configuration, which output; None: all tensors of the output.
Entry = tuple[str, dict[str, Any], str | None]
CLASSIFIER = {"num_labels": 3}
TRANSFORMERS: dict[str, Entry] = {
    "vit": ("ViTForImageClassification", {**WIDTHS, **PATCHES, "num_labels": 5}, "logits"),
    "dinov2": (
        "Dinov2ForImageClassification",
        {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, **PATCHES}
        | {"num_labels": 5},
        "logits",
    ),
    "clip_vision": ("CLIPVisionModel", {**WIDTHS, **PATCHES}, "pooler_output"),
    "bert": ("BertForSequenceClassification", {**TEXT, **CLASSIFIER}, "logits"),
    "roberta": (
        "RobertaForTokenClassification",
        {**TEXT, **CLASSIFIER, "max_position_embeddings": 40},
        "logits",
    ),
    "distilbert": (
        "DistilBertForSequenceClassification",
        {"vocab_size": 99, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, **CLASSIFIER},
        "logits",
    ),
    "gpt2": (
        "GPT2LMHeadModel",
        {"vocab_size": 99, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32}
        | {"use_cache": False},
        "logits",
    ),
    "llama": ("LlamaForCausalLM", DECODER, "logits"),
    "mistral": ("MistralForCausalLM", DECODER, "logits"),
    "qwen2": ("Qwen2ForCausalLM", DECODER, "logits"),
    "t5": (
        "T5EncoderModel",
        {"vocab_size": 99, "d_model": 32, "d_ff": 64, "num_layers": 2, "num_heads": 4, "d_kv": 8},
        "last_hidden_state",
    ),
    "whisper_encoder": (
        WHISPER,
        {"d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 64}
        | {"num_mel_bins": 16, "max_source_positions": 20},
        "last_hidden_state",
    ),
    "wav2vec2": (
        "Wav2Vec2ForCTC",
        {**WIDTHS, "vocab_size": 20, "conv_dim": (32,) * 3, "conv_kernel": (10, 3, 3)}
        | {"conv_stride": (5, 2, 2), "num_feat_extract_layers": 3}
        | {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4},
        "logits",
    ),
    "detr": (
        "DetrForObjectDetection",
        {"use_timm_backbone": False, "backbone": None, "use_pretrained_backbone": False}
        | {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "num_queries": 5}
        | {"encoder_attention_heads": 4, "decoder_attention_heads": 4, **CLASSIFIER}
        | {"encoder_ffn_dim": 64, "decoder_ffn_dim": 64},
        None,
    ),
    "segformer": (
        "SegformerForSemanticSegmentation",
        {"hidden_sizes": [16, 32, 40, 64], "depths": [1] * 4, "decoder_hidden_size": 32}
        | {"num_attention_heads": [1, 2, 4, 8], **CLASSIFIER},
        "logits",
    ),
    "convnext": (
        "ConvNextForImageClassification",
        {"hidden_sizes": [16, 24, 32, 48], "depths": [1] * 4, **CLASSIFIER},
        "logits",
    ),
    "resnet": ("ResNetForImageClassification", {**STAGES, **CLASSIFIER}, "logits"),
    "regnet": (
        "RegNetForImageClassification",
        {**STAGES, **CLASSIFIER, "groups_width": 8},
        "logits",
    ),
    "swin": (
        "SwinForImageClassification",
        {"embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}
        | {"image_size": 32, "patch_size": 4, **CLASSIFIER},
        "logits",
    ),
    "mobilevit": (
        "MobileViTForImageClassification",
        {"hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 16, 16, 24, 32, 40, 64]}
        | {"image_size": 64, **CLASSIFIER},
        "logits",
    ),
    "mobilenet_v2": (
        "MobileNetV2ForImageClassification",
        {"depth_multiplier": 0.35, **CLASSIFIER},
        "logits",
    ),
    "patchtst": (
        "PatchTSTForPrediction",
        {"num_input_channels": 2, "context_length": 32, "patch_length": 8, "patch_stride": 8}
        | {"d_model": 16, "num_attention_heads": 4, "num_hidden_layers": 2, "ffn_dim": 32}
        | {"prediction_length": 4},
        "prediction_outputs",
    ),
}


def transformers_model(name: str) -> Made:
    """Return a small model of transformers that gives tensors only."""
    library = importlib.import_module("transformers")
    path, options, key = TRANSFORMERS[name]
    module, _, kind = path.rpartition(".")
    place = importlib.import_module(f"transformers.{module}") if module else library
    maker = getattr(place, kind)
    if name == "detr":
        backbone = library.ResNetConfig(**STAGES, out_features=["stage4"])
        options = {**options, "backbone_config": backbone}
    model = maker(maker.config_class(**options))

    def run(model: nn.Module, **inputs: Any) -> Any:
        output = model(**inputs)
        if key is not None:
            return output[key]
        return {k: value for k, value in output.items() if isinstance(value, Tensor)}

    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(2, 92, (1, 9), generator=generator)
    inputs: dict[str, Any] = {
        "input_ids": {"input_ids": tokens},
        "input_features": {"input_features": torch.zeros(1, 16, 40)},
        "input_values": {"input_values": torch.zeros(1, 800)},
        "past_values": {"past_values": torch.rand(1, 32, 2, generator=generator)},
        "pixel_values": {"pixel_values": images(options.get("image_size", 64))},
    }
    return Adapted(model, run), inputs[model.main_input_name]


# --- all -----------------------------------------------------------------------------------------


def toy(name: str) -> Made:
    """Return a network that needs no library: ``plain``, or ``endless``, which never returns."""
    plain = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1))
    return {"plain": plain, "endless": Adapted(plain, _endless)}[name], images(8)


def _endless(model: nn.Module, x: Tensor) -> Tensor:
    while True:
        model(x)


MAKERS: dict[str, Callable[[str], Made]] = {
    "tv": torchvision_classifier,
    "timm": timm_model,
    "ul": ultralytics_model,
    "smp": segmentation_model,
    "hf": transformers_model,
    "tvdet": torchvision_detector,
    "tvseg": torchvision_segmentation,
    "tvvid": torchvision_video,
    "tvq": torchvision_quantizable,
    "tvflow": torchvision_flow,
    "toy": toy,
}


def selected(wanted: list[str]) -> list[str]:
    """Return full names: of all models, of whole libraries, and of single ones.

    Raises:
        ValueError: a library is unknown.

    >>> selected(["tvflow", "hf:vit"])
    ['tvflow:raft_small', 'hf:vit']
    """
    found = []
    for word in wanted or list(NAMES):
        library, colon, _ = word.partition(":")
        if library not in MAKERS or (not colon and library not in NAMES):
            raise ValueError(
                f"{word!r} is neither a library nor library:model: libraries are {', '.join(NAMES)}"
            )
        found += [word] if colon else [f"{library}:{model}" for model in NAMES[library]]
    return list(dict.fromkeys(found))


def make(name: str) -> Made:
    """Build a model by its full name, in eval mode, with its input; seeded."""
    torch.manual_seed(0)
    library, _, model = name.partition(":")
    network, example = MAKERS[library](model)
    return network.eval(), example
