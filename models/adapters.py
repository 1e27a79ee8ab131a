"""Small trained parts in a model whose own weights stay as they are. Takes a transformers model and the `model.adapter` part of the spec;
puts the parts in, in place, and says which parameters train: they and the head. Called by `text.build`. The model keeps its class,
its forward arguments and the shape of its output, so tasks, engines and the trunk see nothing of it. A part's parameters have
`adapter` or `lora_` in their names and lie in the layer they change, so `depth_groups` counts them there; prompts are embeddings.

LoRA (Hu et al. 2022) is peft's; base weights are called `...base_layer...` there, and `merged` gives those of the plain model. The others are written here: peft
has no bottleneck adapters (Houlsby et al. 2019), and its prompts (Lester et al. 2021) and prefixes (Li and Liang 2021) wrap the
model, hold one table for all layers, and make a head read a prompt in place of the first token.

Every part begins as nothing at all (its last matrix is 0) but prompts and prefixes, which begin as embeddings of drawn tokens and as
small random numbers. Shapes: B rows, L tokens, P prompt tokens, D width, H heads."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from models.config import AdapterConfig
from models.depth import HEAD, depth_groups, is_part, layer_of, stacks
from models.families import ADAPTED, TRUNKS, ModelError, unadaptable
from models.state import named_state

PREFIX_STD = 0.02
CHILD = "adapter"


def attach(model: nn.Module, config: AdapterConfig, *, seed: int) -> None:
    """Put the parts in. What is random is drawn from `seed`. Raises ModelError for a family that they cannot be put into."""
    if why := unadaptable(str(model.config.model_type), config.kind):  # type: ignore[union-attr]
        raise ModelError(why)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % 2**63)
        {"lora": _lora, "bottleneck": _bottlenecks, "prompt": _prompt, "prefix": _prefixes}[config.kind](model, config)


def trained(model: nn.Module) -> set[str] | None:
    """Names of the parameters that train; None for a model without adapters, where all may."""
    names = {name for name, _ in model.named_parameters() if is_part(name)}
    if not names:
        return None
    return names | {
        name for group, members in depth_groups(model) if group.rpartition(".")[2] == HEAD for name, _ in members
    }


def merged(model: nn.Module) -> dict[str, torch.Tensor]:
    """The plain model's tensors: LoRA's products added to the weights they stand beside. The model stays as it is."""
    from peft.tuners.lora import LoraLayer

    changes = {
        f"{path}.base_layer.weight": module.get_delta_weight(name)
        for path, module in model.named_modules()
        if isinstance(module, LoraLayer)
        for name in module.active_adapters
    }
    found = {}
    for name, tensor in named_state(model).items():
        if not is_part(name):
            value = tensor.detach()
            found[name.replace(".base_layer.", ".")] = value + changes[name] if name in changes else value
    return found


# ------------------------------------------------------------------------------------------------ LoRA


def _lora(model: nn.Module, config: AdapterConfig) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    targets, _ = ADAPTED[str(model.config.model_type)]  # type: ignore[union-attr]
    rank = config.numbers["rank"]
    chosen = LoraConfig(
        r=rank,
        lora_alpha=config.alpha or 2 * rank,
        target_modules=list(targets),
        fan_in_fan_out=model.config.model_type == "gpt2",  # type: ignore[union-attr]
    )
    inject_adapter_in_model(chosen, model)


# ------------------------------------------------------------------------------------------------ bottlenecks


class Bottleneck(nn.Module):
    """`x + up(gelu(down(x)))`."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, size), nn.Linear(size, width)
        nn.init.normal_(self.down.weight, std=0.02)
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x_BLD: torch.Tensor) -> torch.Tensor:
        return x_BLD + self.up(functional.gelu(self.down(x_BLD)))


def _bottlenecks(model: nn.Module, config: AdapterConfig) -> None:
    """Two a layer, behind the last projection of attention and of the feed-forward part, before the residual is added."""
    _, ends = ADAPTED[str(model.config.model_type)]  # type: ignore[union-attr]
    for module in _in_layers(model, ends):
        width = module.nf if hasattr(module, "nf") else module.out_features  # GPT-2's Conv1D
        module.add_module(CHILD, Bottleneck(width, config.numbers["size"]))
        module.register_forward_hook(_through)


def _through(module: nn.Module, _: Any, output_BLD: torch.Tensor) -> torch.Tensor:
    return module.get_submodule(CHILD)(output_BLD)  # type: ignore[no-any-return]


# ------------------------------------------------------------------------------------------------ prompts


class Prompt(nn.Module):
    """P embeddings that stand beside those of every row. They come in behind position embeddings and norm, so their place is free:
    at the end, where no index of a real token moves."""

    def __init__(self, start_PD: torch.Tensor) -> None:
        super().__init__()
        self.prompt_PD = nn.Parameter(start_PD)

    def forward(self, hidden_BLD: torch.Tensor) -> torch.Tensor:
        return torch.cat([hidden_BLD, self.prompt_PD.to(hidden_BLD.dtype).expand(len(hidden_BLD), -1, -1)], 1)


def _prompt(model: nn.Module, config: AdapterConfig) -> None:
    encoder = getattr(model, TRUNKS[str(model.config.model_type)][0])  # type: ignore[union-attr]
    count, vocabulary = config.numbers["tokens"], int(model.config.vocab_size)  # type: ignore[union-attr]
    was = encoder.embeddings.training
    with torch.no_grad():
        start_PD = encoder.embeddings.eval()(torch.randint(vocabulary, (1, count)).to(encoder.device))[0].clone()
    encoder.embeddings.train(was)
    encoder.embeddings.add_module(CHILD, Prompt(start_PD))
    encoder.embeddings.register_forward_hook(_through)
    encoder.register_forward_pre_hook(_see_prompt, with_kwargs=True)
    count_of_tokens = functools.partial(_without_prompt, count)
    _runner(encoder).register_forward_hook(count_of_tokens)


def _runner(encoder: nn.Module) -> nn.Module:
    """What runs the layers: heads see its output."""
    path, _, _ = TRUNKS[str(encoder.config.model_type)][1].rpartition(".")  # type: ignore[union-attr]
    return encoder.get_submodule(path)


def _see_prompt(encoder: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Every token sees it and it sees its whole row; in packed rows (a mask of B x 1 x L x L) all texts of it."""
    count, mask = len(encoder.embeddings.get_submodule(CHILD).prompt_PD), kwargs.get("attention_mask")
    if mask is not None:
        room = (0, count) if mask.ndim == 2 else (0, count, 0, count)
        kwargs = {**kwargs, "attention_mask": functional.pad(mask, room, value=1)}
    return args, kwargs


def _without_prompt(count: int, _: nn.Module, __: Any, output: Any) -> Any:
    output.last_hidden_state = output.last_hidden_state[:, :-count]
    return output


# ------------------------------------------------------------------------------------------------ prefixes


class Prefix(nn.Module):
    """P keys and values that stand beside those of every row in one layer's attention. It is handed to that layer in the place where
    a decoder's cache would stand."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.keys_PD = nn.Parameter(torch.randn(count, width) * PREFIX_STD)
        self.values_PD = nn.Parameter(torch.randn(count, width) * PREFIX_STD)

    def update(self, keys_BHLd: torch.Tensor, values_BHLd: torch.Tensor, _: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self(keys_BHLd, values_BHLd)  # type: ignore[no-any-return]

    def forward(self, keys_BHLd: torch.Tensor, values_BHLd: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self._longer(keys_BHLd, self.keys_PD), self._longer(values_BHLd, self.values_PD)

    def _longer(self, x_BHLd: torch.Tensor, own_PD: torch.Tensor) -> torch.Tensor:
        rows, heads, _, size = x_BHLd.shape
        own_HPd = own_PD.to(x_BHLd.dtype).view(-1, heads, size).transpose(0, 1)
        return torch.cat([x_BHLd, own_HPd.expand(rows, -1, -1, -1)], 2)


def _prefixes(model: nn.Module, config: AdapterConfig) -> None:
    for module in _in_layers(model, ("attention.self",)):
        module.add_module(CHILD, Prefix(config.numbers["tokens"], module.all_head_size))
        module.register_forward_pre_hook(_with_prefix, with_kwargs=True)


def _with_prefix(module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    prefix, mask = module.get_submodule(CHILD), kwargs.get("attention_mask")
    kwargs = {**kwargs, "past_key_values": prefix}
    if mask is not None:
        seen = True if mask.dtype == torch.bool else 0.0  # a mask of numbers is added to the scores
        kwargs["attention_mask"] = functional.pad(mask, (0, len(prefix.keys_PD)), value=seen)
    return args, kwargs


def _in_layers(model: nn.Module, ends: tuple[str, ...]) -> Iterator[Any]:
    """Modules of the layers whose paths end so."""
    found = stacks(model)
    for path, module in list(model.named_modules()):
        if path.endswith(tuple(f".{end}" for end in ends)) and layer_of(path, found):
            yield module
