"""What can be known of a model from its config.json alone. Takes the parsed file; gives the names of its depth groups, and of a
family the config.json of a new model. The spec's checks read this table; `models.depth` finds the same names in the model itself,
so a freeze depth refused early is the one the trainer would refuse. Imports neither torch nor transformers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from models.config import PAIRED
from models.config.origins import SizeConfig


class ModelError(ValueError):
    """A model folder that cannot be used: names the folder and what is allowed."""

    exit_code = 1


@dataclass(frozen=True)
class Family:
    """`towers`: (name, key of the layer count, whether it has embeddings of its own), input to output. `reads`: what a token sees.
    `headless`: tasks whose head is the embeddings again and has nothing of its own. `token_types`: how many kinds of token its input
    tells apart, where config.json does not say; 1 where it tells none. The other keys are what config.json calls a size."""

    towers: tuple[tuple[str, str, bool], ...]
    reads: Literal["both sides", "left", "encoder and decoder"] = "both sides"
    width: str = "hidden_size"
    heads: tuple[str, ...] = ("num_attention_heads",)
    feed_forward: tuple[str, ...] = ("intermediate_size",)
    positions: str | None = "max_position_embeddings"
    headless: tuple[str, ...] = ()
    token_types: int = 1

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(key for _, key, _ in self.towers)


def _one(key: str = "num_hidden_layers") -> tuple[tuple[str, str, bool], ...]:
    return (("", key, True),)


FAMILIES: dict[str, Family] = {
    "bert": Family(_one(), token_types=2),
    "roberta": Family(_one()),
    "distilbert": Family(_one("n_layers"), width="dim", heads=("n_heads",), feed_forward=("hidden_dim",)),
    "xlnet": Family(_one("n_layer"), width="d_model", heads=("n_head",), feed_forward=("d_inner",), positions=None),
    "gpt2": Family(
        _one("n_layer"), "left", width="n_embd", heads=("n_head",), feed_forward=("n_inner",), positions="n_positions"
    ),
    "llama": Family(_one(), "left", heads=("num_attention_heads", "num_key_value_heads")),
    "t5": Family(
        (("encoder", "num_layers", True), ("decoder", "num_decoder_layers", False)),
        "encoder and decoder",
        width="d_model",
        heads=("num_heads",),
        feed_forward=("d_ff",),
        positions=None,
    ),
    "bart": Family(
        (("encoder", "encoder_layers", True), ("decoder", "decoder_layers", True)),
        "encoder and decoder",
        width="d_model",
        heads=("encoder_attention_heads", "decoder_attention_heads"),
        feed_forward=("encoder_ffn_dim", "decoder_ffn_dim"),
        headless=("masked_lm", "seq2seq", "denoising"),
    ),
}

# model_type -> (attribute of the encoder in a model with a head, path of its layer list). Their embeddings and layers can be left out
# of the forward pass one by one; their heads for classes and numbers read a row's first token alone.
TRUNKS: dict[str, tuple[str, str]] = {
    "bert": ("bert", "encoder.layer"),
    "roberta": ("roberta", "encoder.layer"),
    "distilbert": ("distilbert", "transformer.layer"),
}


# model_type -> weights that LoRA changes (query and value), and the last projections of attention and feed-forward part, behind which
# bottleneck adapters stand; paths inside a layer.
ADAPTED: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "bert": (("query", "value"), ("attention.output.dense", "output.dense")),
    "roberta": (("query", "value"), ("attention.output.dense", "output.dense")),
    "distilbert": (("q_lin", "v_lin"), ("attention.out_lin", "ffn.lin2")),
    "gpt2": (("c_attn",), ("attn.c_proj", "mlp.c_proj")),
    "llama": (("q_proj", "v_proj"), ("self_attn.o_proj", "mlp.down_proj")),
    "t5": (("q", "v"), ("SelfAttention.o", "DenseReluDense.wo")),
    "bart": (("q_proj", "v_proj"), ("self_attn.out_proj", "fc2")),
}
PREFIXED = ("bert", "roberta")


def unadaptable(model_type: str | None, kind: str) -> str | None:
    """Why a family cannot take an adapter of this kind; None where it can."""
    fit = {"prompt": tuple(TRUNKS), "prefix": PREFIXED}.get(kind, tuple(ADAPTED))
    if model_type in fit:
        return None
    return f"model.adapter.kind={kind}: it can be put into models of {', '.join(fit)}, not of {model_type!r}"


def unpoolable(model_type: str | None, pooling: str | None) -> str | None:
    """Why a family's heads cannot read the mean of a row's tokens; None where they can or need not."""
    if pooling is None or model_type in TRUNKS:
        return None
    return f"model.pooling={pooling}: it can be chosen for models of {', '.join(TRUNKS)}, not of {model_type!r}"


def unmemorable(model_type: str | None, recalls: bool = False) -> str | None:
    """Why a family cannot be given a memory of facts; None where it can. `recalls`: one that is asked at each token that the model gives."""
    fit = [name for name, family in FAMILIES.items() if family.reads == "left"] if recalls else list(TRUNKS)
    if model_type in fit:
        return None
    return f"model.memory: it can be put into models of {', '.join(fit)}, not of {model_type!r}"


# task -> what a token of its model has to see. Others go with any family that transformers has a head for.
READS = {
    "masked_lm": "both sides",
    "sentence_order": "both sides",
    "next_sentence": "both sides",
    "causal_lm": "left",
    "captioning": "left",
    "seq2seq": "encoder and decoder",
    "denoising": "encoder and decoder",
}


# Families that transformers has both heads for: of hidden tokens and of two texts.
ORDERED = ("bert", "albert", "mobilebert", "megatron-bert")


def unfit(model_type: str | None, task: str) -> str | None:
    """Why a known family cannot be trained to do the task; None where it can, or where only transformers knows."""
    if task in PAIRED and model_type is not None and model_type not in ORDERED:
        return f"model.task={task} needs a model with a head for two texts, and {model_type} has none; families: {', '.join(ORDERED)}"
    known, wanted = FAMILIES.get(model_type or ""), READS.get(task)
    if known is None or wanted is None or known.reads == wanted:
        return None
    fit = ", ".join(name for name, family in FAMILIES.items() if family.reads == wanted)
    return f"model.task={task} needs a model whose tokens see {wanted}, and those of {model_type} see {known.reads}; families: {fit}"


def depth_names(config: dict[str, Any], task: str = "classification") -> list[str] | None:
    """`['embeddings', 'layer.0', ..., 'layer.N-1', 'head']`, input to output; with an encoder and a decoder each name says which. The
    head holds what comes behind the last layer. None for a family that is not in FAMILIES: only the model itself can tell.

    Layers that share weights (`share_layers`) are one group, with the name of the first. Raises ModelError for a config without its layer
    count.
    """
    family = FAMILIES.get(config.get("model_type", ""))
    if family is None:
        return None
    names: list[str] = []
    for tower, key, embeddings in family.towers:
        layers = config.get(key)
        if layers is None and key == "num_decoder_layers":
            layers = config.get("num_layers")
        if not isinstance(layers, int) or layers < 1:
            raise ModelError(f"config.json has {key}={layers!r}; it must be a positive whole number")
        prefix = f"{tower}." if tower else ""
        names += [f"{prefix}embeddings"] if embeddings else []
        shown = range(layers) if not config.get("share_layers") else sorted({*owners(layers, config["share_layers"])})
        names += [f"{prefix}layer.{i}" for i in shown]
    return names if task in family.headless else [*names, "head"]


def owners(layers: int, distinct: int) -> list[int]:
    """Of each layer, whose weights it uses where `distinct` layers have some of their own: stretches of like length, as ALBERT's groups. Raises
    ModelError for more than there are layers."""
    if not 1 <= distinct <= layers:
        raise ModelError(f"model.share_layers={distinct}: the model has {layers} layers; allowed: 1 to {layers}")
    stretch = [number * distinct // layers for number in range(layers)]
    return [stretch.index(part) for part in stretch]


def decoder_start(config: dict[str, Any]) -> int:
    """The token that stands before the first one that a decoder writes. Raises ModelError where config.json names none."""
    found = config.get("decoder_start_token_id")
    if found is None:
        found = {"t5": config.get("pad_token_id", 0), "bart": 2}.get(config.get("model_type", ""))
    if found is None:
        raise ModelError(
            "config.json has no decoder_start_token_id; a model that writes must say what its decoder begins with"
        )
    return int(found)


# RoBERTa and those made of it have a table of token types in which only the first was ever trained: their tokenizers tell no others.
ONE_TYPE = ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "longformer", "data2vec-text")


def token_types(config: dict[str, Any]) -> int:
    """How many kinds of token the model's `token_type_ids` tell apart; 1: it takes none. The second text of a pair is type 1."""
    kind = config.get("model_type", "")
    if kind in ONE_TYPE:
        return 1
    known = FAMILIES.get(kind)
    return max(1, int(config.get("type_vocab_size") or (known.token_types if known else 1)))


def size_of(config: dict[str, Any]) -> SizeConfig | None:
    """Layers of all towers, width and heads, from config.json; None for a family that is not in FAMILIES."""
    family = FAMILIES.get(config.get("model_type", ""))
    if family is None:
        return None
    layers = sum(1 for name in depth_names({**config, "share_layers": None}) or () if "layer." in name)
    return SizeConfig.model_construct(
        layers=layers, width=int(config[family.width]), heads=int(config[family.heads[0]]), feed_forward=None
    )


def cut_config(config: dict[str, Any], layers: list[int]) -> dict[str, Any]:
    """config.json of a model with these layers alone. Raises ModelError for a family that cannot be cut and a layer that is not there."""
    family = str(config.get("model_type"))
    if family not in TRUNKS:
        raise ModelError(
            f"model.layers_from: layers can be picked from models of {', '.join(TRUNKS)}, not of {family!r}"
        )
    (key,) = FAMILIES[family].layers
    if wrong := [layer for layer in layers if layer >= config[key]]:
        raise ModelError(
            f"model.layers_from: layer {wrong[0]} is not there; the model has layers 0 to {config[key] - 1}"
        )
    return {**config, key: len(layers)}


def new_config(family: str, size: SizeConfig, *, vocab: int, positions: int, special: dict[str, int]) -> dict[str, Any]:
    """config.json of a model from scratch. `special`: pad, bos, eos ... -> token id, where the tokenizer has them."""
    known = FAMILIES[family]
    values: dict[str, Any] = {"model_type": family, "vocab_size": vocab, known.width: size.width}
    values |= dict.fromkeys(known.layers, size.layers) | dict.fromkeys(known.heads, size.heads)
    values |= dict.fromkeys(known.feed_forward, size.feed_forward or 4 * size.width)
    if family == "t5":
        values["d_kv"] = size.width // size.heads
    if known.positions:
        # RoBERTa counts positions from pad_token_id + 1.
        values[known.positions] = positions + (special.get("pad", 1) + 1 if family == "roberta" else 0)
    names = {"pad": "pad_token_id", "bos": "bos_token_id", "eos": "eos_token_id"}
    values |= {names[key]: value for key, value in special.items() if key in names}
    if family in ("t5", "bart") and "pad" in special:
        values["decoder_start_token_id"] = special["pad"]
    return values
