"""What a layer is. Takes any model; gives its parameters in depth groups, input to output. Freezing, layered rates, adapters, plans
and reports all count in these groups and in nothing else.

A *stack* is a list of layers: an outermost `ModuleList` with parameters, in the part of a transformers model that its heads share.
What lies before a stack are its embeddings, each item is a layer, what comes behind the last stack is the head. Two stacks (encoder
and decoder, text and image) are told apart by the part of their paths in which they differ. Our own models of several towers say so
themselves: `model.towers()` gives (name, module), and each tower is counted for itself. For the families of `families.FAMILIES` the
names are those that `families.depth_names` reads off config.json."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from models.families import ModelError

DepthGroup = tuple[str, list[tuple[str, nn.Parameter]]]
HEAD = "head"


@dataclass(frozen=True)
class Stack:
    """`path`: of the list of layers; `name`: what tells it from others, '' where there is no other; `region`: path of the module that
    holds it and its embeddings."""

    path: str
    name: str
    region: str

    def label(self, group: str) -> str:
        return f"{self.name}.{group}" if self.name else group


def depth_groups(model: nn.Module) -> list[DepthGroup]:
    """`[(group name, [(parameter name, parameter)])]`, input to output; every parameter is in exactly one group.

    A tied parameter is counted once, where it is first used. Raises ModelError for a model without a list of layers.
    """
    towers = model.towers() if hasattr(model, "towers") else None
    if towers is None:
        return _single(model)
    found: list[DepthGroup] = []
    taken: set[int] = set()
    for name, tower in towers:
        prefix = next(path for path, module in model.named_modules() if module is tower)
        for group, members in _single(tower):
            # Behind a tower's last layer come its pooler and last norm: the top of this tower, not of the model.
            shown = "top" if group == HEAD else group
            found.append((f"{name}.{shown}", [(f"{prefix}.{n}", p) for n, p in members if id(p) not in taken]))
        taken |= {id(parameter) for parameter in tower.parameters()}
    rest = [(name, parameter) for name, parameter in model.named_parameters() if id(parameter) not in taken]
    return [*((group, members) for group, members in found if members), (HEAD, rest)]


def stacks(model: nn.Module) -> list[Stack]:
    """The lists of layers, input to output. Raises ModelError where there is none."""
    backbone, prefix = _backbone(model)
    paths: list[str] = []
    for path, module in backbone.named_modules():
        inside = any(path.startswith(f"{outer}.") for outer in paths)
        if isinstance(module, nn.ModuleList) and not inside and any(True for _ in module.parameters()):
            paths.append(path)
    if not paths:
        raise ModelError(f"{type(model).__name__} has no list of layers (ModuleList); its depth cannot be counted")
    if len(paths) == 1:
        return [Stack(prefix + paths[0], "", prefix.rstrip("."))]
    parts = [path.split(".") for path in paths]
    at = next(i for i in range(max(map(len, parts))) if len({tuple(part[: i + 1]) for part in parts}) == len(parts))
    return [Stack(prefix + ".".join(part), part[at], prefix + ".".join(part[: at + 1])) for part in parts]


def is_part(name: str) -> bool:
    """Whether a parameter's name is that of an adapter (`models.adapters`), which belongs to the layer it changes."""
    return ".adapter." in name or ".lora_" in name


def layer_of(name: str, found: list[Stack]) -> tuple[Stack, int] | None:
    """The layer that a parameter or module belongs to by its name; None outside all layers."""
    for stack in found:
        if name.startswith(f"{stack.path}."):
            return stack, int(name[len(stack.path) + 1 :].partition(".")[0])
    return None


def _backbone(model: nn.Module) -> tuple[nn.Module, str]:
    """The part of a transformers model below its heads, and the prefix of its parameters' names; else the model itself."""
    prefix = getattr(model, "base_model_prefix", "")
    inner = getattr(model, prefix, None) if prefix else None
    return (inner, f"{prefix}.") if isinstance(inner, nn.Module) else (model, "")


def _single(model: nn.Module) -> list[DepthGroup]:
    found = stacks(model)
    _, prefix = _backbone(model)
    named = list(model.named_parameters())
    sizes = [len(model.get_submodule(stack.path)) for stack in found]
    first = [next(i for i, (name, _) in enumerate(named) if name.startswith(f"{stack.path}.")) for stack in found]
    owning = [{held[1] for name, _ in named if (held := layer_of(name, [stack]))} for stack in found]
    last = [max(numbers) for numbers in owning]  # of the layers that have weights of their own
    groups: dict[str, list[tuple[str, nn.Parameter]]] = {}
    for stack, size in zip(found, sizes, strict=True):
        groups |= {stack.label(name): [] for name in ("embeddings", *(f"layer.{i}" for i in range(size)))}
    groups[HEAD] = []
    for at, (name, parameter) in enumerate(named):
        groups[_group(name, parameter, at, found, last, first, prefix)].append((name, parameter))
    return [(name, members) for name, members in groups.items() if members]


def _group(
    name: str,
    parameter: nn.Parameter,
    at: int,
    found: list[Stack],
    last: list[int],
    first: list[int],
    prefix: str,
) -> str:
    """Parameters come in the order in which their modules were made, which is that of use in every family known but for BART's
    `layernorm_embedding`, made behind the layers: what is called an embedding is one."""
    inside = layer_of(name, found)
    if inside:
        return inside[0].label(f"layer.{inside[1]}")
    if not name.startswith(prefix) or parameter.ndim == 0:  # a head; a temperature
        return HEAD
    for number, stack in enumerate(found):
        if (at < first[number] or "embed" in name) and (
            name.startswith(f"{stack.region}.") or at < first[0] or not stack.name
        ):
            return stack.label("embeddings")
        if stack.name and name.startswith(f"{stack.region}.") and number < len(found) - 1:
            return stack.label(f"layer.{last[number]}")  # the norm behind an encoder's last layer
    return HEAD
