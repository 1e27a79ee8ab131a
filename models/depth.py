"""What a layer is. Takes a classification model of a family in `models.families`; gives its parameters in depth groups,
input to output. Freezing, layered rates, plans and reports all count in these groups and in nothing else. The names are
those of `families.depth_names`, so a freeze depth that the spec's checks accept is one that the trainer accepts."""

from __future__ import annotations

from torch import nn

from models.families import FAMILIES, ModelError, depth_names

DepthGroup = tuple[str, list[tuple[str, nn.Parameter]]]


def depth_groups(model: nn.Module) -> list[DepthGroup]:
    """`[(group name, [(parameter name, parameter)])]`, input to output; every parameter is in exactly one group.

    A tied parameter is counted once, where it is first used. Raises ModelError for a family that is not supported, or a
    parameter of the encoder that lies in none of its groups (a variant of the family that this table does not know).
    """
    config = model.config.to_dict()
    groups: dict[str, list[tuple[str, nn.Parameter]]] = {name: [] for name in depth_names(config)}
    for name, parameter in model.named_parameters():
        groups[group_of(name, config["model_type"])].append((name, parameter))
    return list(groups.items())


def group_of(parameter_name: str, family: str) -> str:
    """`bert.encoder.layer.3.output.dense.bias` -> `layer.3`. Raises ModelError where no group holds the name."""
    encoder, layers, _ = FAMILIES[family]
    inside, prefix, rest = parameter_name.partition(f"{encoder}.")
    if inside or not prefix or rest.startswith("pooler."):
        return "head"  # outside the encoder: classifier, pre_classifier; the pooler feeds only the head
    if rest.startswith("embeddings."):
        return "embeddings"
    if rest.startswith(f"{layers}."):
        return f"layer.{rest[len(layers) + 1 :].partition('.')[0]}"
    raise ModelError(
        f"parameter {parameter_name!r} lies in no depth group of family {family!r}: embeddings, {layers}.N, head"
    )
