"""What can be known of a model from its config.json alone. Takes the parsed file; gives the names of its depth groups.
The spec's checks and `models.depth` both read this table, so a freeze depth refused early is the one the trainer would
refuse. Imports neither torch nor transformers."""

from __future__ import annotations

from typing import Any


class ModelError(ValueError):
    """A model folder that cannot be used: names the folder and what is allowed."""

    exit_code = 1


# model_type -> (attribute of the encoder in the classification model, path of its layer list, key of the layer count)
FAMILIES: dict[str, tuple[str, str, str]] = {
    "bert": ("bert", "encoder.layer", "num_hidden_layers"),
    "roberta": ("roberta", "encoder.layer", "num_hidden_layers"),
    "distilbert": ("distilbert", "transformer.layer", "n_layers"),
}


def depth_names(config: dict[str, Any]) -> list[str]:
    """`['embeddings', 'layer.0', ..., 'layer.N-1', 'head']`, input to output. The head holds pooler and classifier.

    Raises ModelError for a family that is not in FAMILIES or a config without its layer count.
    """
    family = config.get("model_type")
    if family not in FAMILIES:
        raise ModelError(f"model_type {family!r} is not supported; supported families: {', '.join(FAMILIES)}")
    key = FAMILIES[family][2]
    layers = config.get(key)
    if not isinstance(layers, int) or layers < 1:
        raise ModelError(f"config.json has {key}={layers!r}; it must be a positive whole number")
    return ["embeddings", *(f"layer.{i}" for i in range(layers)), "head"]
