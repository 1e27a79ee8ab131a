"""The `model` part of the spec. Pydantic only: importing it loads no torch or transformers."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field, model_validator

# task -> what its validation measures; the first decides where the spec names none.
METRICS: dict[str, tuple[str, ...]] = {
    "classification": ("macro_f1", "accuracy", "loss"),
    "regression": ("pearson", "mae", "rmse", "loss"),
    "tagging": ("macro_f1", "accuracy", "loss"),
    "masked_lm": ("loss", "perplexity", "accuracy"),
    "causal_lm": ("loss", "perplexity", "accuracy"),
}
LOWER = ("loss", "perplexity", "mae", "rmse")  # better when lower; all others when higher
LABELLED = ("classification", "tagging")  # tasks whose outputs have names
LANGUAGE = ("masked_lm", "causal_lm")  # tasks whose targets are the row's own tokens
FAMILIES = ("bert", "roberta", "distilbert", "gpt2", "llama", "t5", "bart")  # what can be made from scratch


class SizeConfig(BaseModel, extra="forbid", frozen=True):
    """A model from scratch by its numbers."""

    layers: int = Field(ge=1, le=1000)
    width: int = Field(ge=8, le=65_536, description="Of hidden states.")
    heads: int = Field(ge=1, le=1024, description="Attention heads of a layer; width is a multiple of it.")
    feed_forward: int | None = Field(None, ge=8, le=262_144, description="Inner width; absent: 4 x width.")

    @model_validator(mode="after")
    def _divides(self) -> SizeConfig:
        if self.width % self.heads:
            raise ValueError(f"width={self.width} is no multiple of heads={self.heads}")
        return self


# Turc et al. 2019, "Well-Read Students Learn Better"; base is BERT's.
SIZES = {
    "tiny": SizeConfig(layers=2, width=128, heads=2),
    "mini": SizeConfig(layers=4, width=256, heads=4),
    "small": SizeConfig(layers=4, width=512, heads=8),
    "base": SizeConfig(layers=12, width=768, heads=12),
}


class MaskingConfig(BaseModel, extra="forbid", frozen=True):
    """Which tokens a masked language model has to find again; drawn anew in each epoch (Liu et al. 2019, RoBERTa)."""

    rate: float = Field(0.15, gt=0.0, le=0.9, description="Share of a row's tokens, special ones apart.")
    whole_words: bool = Field(False, description="All pieces of a word or none.")
    mask: float = Field(0.8, ge=0.0, le=1.0, description="Share of them that the mask token replaces.")
    random: float = Field(0.1, ge=0.0, le=1.0, description="Share that a random token replaces; the rest stay.")

    @model_validator(mode="after")
    def _shares(self) -> MaskingConfig:
        if self.mask + self.random > 1.0:
            raise ValueError(
                f"mask={self.mask} and random={self.random} are shares of the same tokens; at most 1 together"
            )
        return self


# kind of adapter -> the number that it takes, and what it is where the spec does not say
ADAPTERS: dict[str, dict[str, int]] = {
    "lora": {"rank": 8},
    "bottleneck": {"size": 64},
    "prompt": {"tokens": 20},
    "prefix": {"tokens": 20},
}


def _absent(value: object) -> bool:
    """Leaves a key that is not set out of dumps, so that what was written before there was such a key stays equal."""
    return not value


class AdapterConfig(BaseModel, extra="forbid", frozen=True):
    """A small part that is trained, with the head, in place of the model's own weights."""

    kind: Literal["lora", "bottleneck", "prompt", "prefix"] = Field(
        description="lora: low-rank changes of query and value weights; bottleneck: two narrow layers in each layer; prompt: trained"
        " embeddings beside every row; prefix: trained keys and values in each layer."
    )
    rank: int | None = Field(None, ge=1, le=4096, description="Of lora; absent: 8.")
    alpha: float | None = Field(None, gt=0.0, le=10_000.0, description="Of lora, its scale is alpha / rank; absent: 2.")
    size: int | None = Field(None, ge=1, le=65_536, description="Inner width of a bottleneck; absent: 64.")
    tokens: int | None = Field(None, ge=1, le=1024, description="Length of a prompt or prefix; absent: 20.")
    alone: bool = Field(
        False,
        description="A package holds adapter and head alone, and takes the rest from the pretrained weights in storage.",
    )

    @model_validator(mode="after")
    def _only_its_own(self) -> AdapterConfig:
        own = {*ADAPTERS[self.kind], *(["alpha"] if self.kind == "lora" else [])}
        for key in ("rank", "alpha", "size", "tokens"):
            if key not in own and getattr(self, key) is not None:
                raise ValueError(
                    f"{key} is no key of kind={self.kind}; allowed with it: {', '.join(sorted(own))}, alone"
                )
        return self

    @property
    def numbers(self) -> dict[str, int]:
        """The kind's number, by name."""
        return {key: getattr(self, key) or value for key, value in ADAPTERS[self.kind].items()}

    @property
    def merges(self) -> bool:
        """Whether a package's weights hold its work already, so that the package is a plain model."""
        return self.kind == "lora" and not self.alone


class ModelConfig(BaseModel, extra="forbid", frozen=True):
    """A pretrained model, or one from scratch, and what it is trained to do."""

    path: str | None = Field(
        None,
        min_length=1,
        description="A folder with config.json, safetensors and tokenizer, or `catalog:NAME`. Relative paths start at the spec's folder.",
    )
    family: Literal["bert", "roberta", "distilbert", "gpt2", "llama", "t5", "bart"] | None = Field(
        None, description="In place of path: from scratch, with random weights."
    )
    size: Literal["tiny", "mini", "small", "base"] | SizeConfig | None = Field(
        None, description="Of a model from scratch: a name (Turc et al. 2019) or numbers; absent: mini."
    )
    tokenizer: str | None = Field(
        None, min_length=1, description="Of a model from scratch: a folder with tokenizer.json, or `catalog:NAME`."
    )
    task: Literal["classification", "regression", "tagging", "masked_lm", "causal_lm"] = "classification"
    masking: MaskingConfig | None = Field(None, description="Of task masked_lm; absent: 15% of the tokens.")
    adapter: AdapterConfig | None = Field(
        None,
        exclude_if=_absent,
        description="Train small parts and the head; the model's own weights stay as they are.",
    )
    dropout: float | None = Field(
        None,
        ge=0.0,
        lt=1.0,
        description="Overrides every dropout rate of the encoder and its head; absent: the model's own.",
    )

    @model_validator(mode="after")
    def _one_origin(self) -> ModelConfig:
        if (self.path is None) == (self.family is None):
            raise ValueError("give path (a pretrained model) or family (one from scratch), and not both")
        if self.path is not None:
            for key in ("size", "tokenizer"):
                if getattr(self, key) is not None:
                    raise ValueError(f"{key} belongs to a model from scratch (family); a folder at path has its own")
        elif self.tokenizer is None:
            raise ValueError("a model from scratch needs tokenizer: a folder with tokenizer.json, or catalog:NAME")
        if self.adapter is not None and self.path is None:
            raise ValueError(
                "adapter changes a pretrained model: give path; one from scratch (family) has to be trained whole"
            )
        if self.masking is not None and self.task != "masked_lm":
            raise ValueError(f"masking belongs to task masked_lm, found task={self.task}")
        return self

    @property
    def folder(self) -> str:
        """Where files come from: the pretrained model, or the tokenizer of one from scratch."""
        return self.path or self.tokenizer or ""

    @property
    def folder_key(self) -> str:
        """The spec's key for it."""
        return "model.path" if self.path is not None else "model.tokenizer"

    @property
    def numbers(self) -> SizeConfig:
        """Size of a model from scratch."""
        return self.size if isinstance(self.size, SizeConfig) else SIZES[self.size or "mini"]

    @property
    def metric(self) -> str:
        """What decides the best checkpoint where the spec does not say."""
        return METRICS[self.task][0]
