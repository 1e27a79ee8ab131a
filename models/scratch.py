"""config.json of a new encoder of pictures, sound or series, by a size as text models have it (layers, width, heads) and by what its rows
are like. Called when a model from scratch is put into storage; `families.new_config` does the same for text. Imports neither torch nor
transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from models.config import ordered
from models.config.origins import FAMILIES, SizeConfig
from models.families import ModelError

TOWERS = "eagleray_towers"  # model_type of our own model of several encoders, `models.towers`
PATCHES = 8  # a side of a picture in patches of a Vision Transformer: 64 tokens
GREY = {  # pixels from -1 to 1: no statistics of a corpus are needed (as ViT's own processing)
    "image_processor_type": "ViTImageProcessor",
    "do_resize": True,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}


@dataclass(frozen=True)
class Shapes:
    """What rows are like. `positions`: tokens a text; `image`: pixels a side; `rate`: samples a second of sound; `columns`: numbers a step
    of a series."""

    positions: int = 512
    image: int = 64
    rate: int = 16_000
    columns: int = 1


def encoder_config(family: str, size: SizeConfig, shapes: Shapes) -> dict[str, Any]:
    """Raises ModelError for rows that the family cannot read."""
    return {"model_type": MODEL_TYPES.get(family, family), **_CONFIGS[family](size, shapes)}


def model_config(family: str, size: SizeConfig, shapes: Shapes) -> dict[str, Any]:
    """The same with a head: transformers has none for sound and series, so they are a tower that stands alone."""
    config = encoder_config(family, size, shapes)
    return towers_config({FAMILIES[family]: config}, None) if family in MODEL_TYPES else config


def towers_config(
    towers: Mapping[str, dict[str, Any]], fusion: dict[str, Any] | None, projection: int | None = None
) -> dict[str, Any]:
    """config.json of several encoders in one, from those of each."""
    pad = towers.get("text", {}).get("pad_token_id")
    return {
        "model_type": TOWERS,
        "towers": dict(towers),
        **({"fusion": fusion} if fusion else {}),
        **({"projection": projection} if projection else {}),
        **({} if pad is None else {"pad_token_id": pad}),
    }


def processing(shapes: Shapes) -> dict[str, Any]:
    """preprocessor_config.json of a new encoder of pictures."""
    return {**GREY, "size": {"height": shapes.image, "width": shapes.image}}


def _vit(size: SizeConfig, shapes: Shapes) -> dict[str, Any]:
    if shapes.image % PATCHES:
        raise ModelError(f"family vit cuts pictures into {PATCHES} x {PATCHES} patches; data.image.size={shapes.image}")
    return {
        "hidden_size": size.width,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "intermediate_size": size.feed_forward or 4 * size.width,
        "image_size": shapes.image,
        "patch_size": shapes.image // PATCHES,
    }


def _resnet(size: SizeConfig, shapes: Shapes) -> dict[str, Any]:
    """Four stages of basic blocks (He et al. 2015, table 1, ResNet-18), each twice as wide as the one before, `width` being the last;
    `layers` blocks in all, at least one a stage."""
    return {
        "embedding_size": max(8, size.width // 8),
        "hidden_sizes": [max(8, size.width // share) for share in (8, 4, 2, 1)],
        "depths": [max(1, (size.layers + 3 - stage) // 4) for stage in range(4)],
        "layer_type": "basic",
    }


def _vgg(size: SizeConfig, shapes: Shapes) -> dict[str, Any]:
    return {
        "depth": next((depth for depth in (19, 16, 13) if size.layers >= depth - 3), 11),
        "hidden_sizes": [max(8, size.width // share) for share in (8, 4, 2, 1, 1)],
        "batch_norm": True,
    }


def _efficientnet(size: SizeConfig, shapes: Shapes) -> dict[str, Any]:
    """B0 (Tan and Le 2019) is 16 blocks, 1280 wide at the end."""
    width = max(8, (size.width + 4) // 8 * 8)
    return {"width_coefficient": width / 1280, "depth_coefficient": min(1.0, size.layers / 16), "hidden_dim": width}


def _mobilenet(size: SizeConfig, shapes: Shapes) -> dict[str, Any]:
    """The multiplier 1.0 (Sandler et al. 2018) is 320 wide before the last convolution."""
    return {"depth_multiplier": size.width / 320, "finegrained_output": True, "image_size": shapes.image}


def _transformer(size: SizeConfig) -> dict[str, Any]:
    return {
        "hidden_size": size.width,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "intermediate_size": size.feed_forward,
    }


def _audio(size: SizeConfig, shapes: Shapes) -> dict[str, Any]:
    """Fewer mels where the rate is low: triangles must not fall between frequencies."""
    return {**_transformer(size), "rate": shapes.rate, "mels": 80 if shapes.rate >= 16_000 else 40}


def _series(size: SizeConfig, shapes: Shapes) -> dict[str, Any]:
    return {**_transformer(size), "columns": shapes.columns}


MODEL_TYPES = {"audio": "eagleray_audio", "series": "eagleray_series"}
_CONFIGS: dict[str, Callable[[SizeConfig, Shapes], dict[str, Any]]] = {
    "vit": _vit,
    "resnet": _resnet,
    "vgg": _vgg,
    "efficientnet": _efficientnet,
    "mobilenet_v2": _mobilenet,
    "audio": _audio,
    "series": _series,
}


# What a config.json inside another leaves out where it is as transformers has it.
DEFAULTS: dict[str, dict[str, Any]] = {
    "clip_text_model": {"max_position_embeddings": 77, "vocab_size": 49_408},
    "clip_vision_model": {"image_size": 224},
}


def encoder_of(config: dict[str, Any], name: str) -> dict[str, Any]:
    """Of config.json of text and pictures in one model (CLIP and its like) what it says of one of its two encoders; of any other all."""
    key, kind = {"image": ("vision_config", "vision_model"), "text": ("text_config", "text_model")}.get(name, ("", ""))
    if key not in config:
        return config
    found = {"model_type": f"{config['model_type']}_{kind}", **config[key]}
    return {**DEFAULTS.get(found["model_type"], {}), **found}


def reads_of(config: dict[str, Any]) -> tuple[str, ...]:
    """What a folder's config.json says that its model reads; () for a family that only transformers knows."""
    if towers := config.get("towers"):
        return ordered(towers)
    names = {MODEL_TYPES.get(family, family): modality for family, modality in FAMILIES.items()}
    found = names.get(str(config.get("model_type")))
    return (found,) if found else ()
