"""The `model` part of the spec. Pydantic only: importing it loads no torch or transformers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, model_validator

from models.config.origins import FAMILIES, OriginConfig

# task -> what its validation measures; the first decides where the spec names none.
METRICS: dict[str, tuple[str, ...]] = {
    "classification": ("macro_f1", "accuracy", "loss"),
    "heads": ("macro_f1", "accuracy", "loss"),
    "regression": ("pearson", "mae", "rmse", "loss"),
    "tagging": ("macro_f1", "accuracy", "loss"),
    "spans": ("f1", "exact_match", "loss"),
    "masked_lm": ("loss", "perplexity", "accuracy"),
    "sentence_order": ("loss", "order_accuracy", "perplexity", "accuracy"),
    "next_sentence": ("loss", "next_accuracy", "perplexity", "accuracy"),
    "causal_lm": ("loss", "perplexity", "accuracy"),
    "seq2seq": ("loss", "perplexity", "accuracy"),
    "denoising": ("loss", "perplexity", "accuracy"),
    "captioning": ("loss", "perplexity", "accuracy"),
    "contrastive": ("recall_at_1", "loss"),
    "matching": ("accuracy", "macro_f1", "loss"),
}
LOWER = ("loss", "perplexity", "mae", "rmse")  # better when lower; all others when higher
LABELLED = ("classification", "tagging", "heads")  # tasks whose outputs have names
PAIRED = (
    "sentence_order",
    "next_sentence",
)  # tasks that hide tokens of two texts, and ask what the texts are to each other
LANGUAGE = ("masked_lm", *PAIRED, "causal_lm")  # tasks whose targets are the row's own tokens
WRITERS = ("seq2seq", "denoising")  # tasks of encoder-decoder models
CAPTIONED = ("captioning",)  # tasks that write the row's own text for what the other towers read
BESIDE = ("masked_lm",)  # tasks of one text that can see other towers too
MIXING = ("interactive", "transformer")  # fusions in which a token of one modality sees those of others
ADDITIVE = ("concat", "decision")  # fusions whose score is a sum of what each modality says alone
COMPARED = ("contrastive", "matching")  # tasks that hold the modalities of a row against those of others
GROUPED = (*COMPARED, "next_sentence")  # tasks in which rows of a group have to do with each other
RECALLING = ("causal_lm",)  # tasks whose memory is asked at each token that is given, and not by the row that is read
POOLED = ("classification", "regression", "heads")  # whose head reads one vector a row
ROWWISE = ("classification", "regression")  # tasks with one answer a row, whatever the row holds
Modality = Literal["text", "image", "audio", "series"]
MODALITIES = ("text", "image", "audio", "series")  # the order in which a model has them, whatever a file says


def absent(value: Any) -> bool:
    """Leaves a key that is not set out of dumps."""
    return not value


def ordered(names: Iterable[str]) -> tuple[str, ...]:
    """Modalities in their order."""
    return tuple(name for name in MODALITIES if name in set(names))


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


class MemoryConfig(BaseModel, extra="forbid", frozen=True):
    """The triples of data.knowledge. An encoder has them embedded once, by itself as it was pretrained, and each row attends to those nearest to it below
    the last layer; of task causal_lm the trained model reads them at export, and asks what follows in them before each token that it gives."""

    neighbours: int = Field(
        8,
        ge=1,
        le=1024,
        description="Triples that a row attends to; of causal_lm places inside them that a token is asked of.",
    )


class DenoisingConfig(BaseModel, extra="forbid", frozen=True):
    """Which stretches of a text an encoder-decoder model has to write again; drawn anew in each epoch."""

    rate: float = Field(0.15, gt=0.0, le=0.9, description="Share of a row's tokens, special ones apart.")
    mean_length: float = Field(3.0, ge=1.0, le=100.0, description="Tokens of a stretch, on average.")
    style: Literal["sentinels", "infilling"] = Field(
        "sentinels",
        description="sentinels: the target is what was taken out (T5); infilling: the whole text (BART).",
    )


class ContrastConfig(BaseModel, extra="forbid", frozen=True):
    """Rows of a group: their vectors are to differ (contrastive, Radford et al. 2021), or they lend each other their text (matching) or the second of their
    texts (next_sentence)."""

    width: int = Field(128, ge=8, le=65_536, description="Of the shared vectors of task contrastive.")
    group: int = Field(
        32,
        ge=2,
        le=65_536,
        description="Rows that have to do with each other. train.batch is a multiple of it; workers and micro-batches never cut it.",
    )


class FusionConfig(BaseModel, extra="forbid", frozen=True):
    """How several encoders become one: `models.fusion` describes each kind."""

    kind: Literal["concat", "gated", "product", "interactive", "transformer", "cross", "decision"] = "concat"
    width: int = Field(128, ge=8, le=65_536, description="Of the shared vector.")
    heads: int = Field(
        4, ge=1, le=1024, description="Of interactive, transformer and cross; width is a multiple of it."
    )
    depth: int = Field(2, ge=1, le=100, description="Layers of interactive, transformer and cross.")
    dropout: float = Field(0.0, ge=0.0, lt=1.0)
    modality_dropout: float = Field(
        0.0, ge=0.0, lt=1.0, description="Share of the modalities that a training row loses, never its last one."
    )

    @model_validator(mode="after")
    def _divides(self) -> FusionConfig:
        if self.kind in ("interactive", "transformer", "cross") and self.width % self.heads:
            raise ValueError(f"width={self.width} is no multiple of heads={self.heads}")
        return self


class ModelConfig(OriginConfig, extra="forbid", frozen=True):
    """A pretrained model, or one from scratch, and what it is trained to do."""

    modalities: list[Modality] | None = Field(
        None,
        min_length=1,
        exclude_if=absent,
        description="What the model at path reads of a row; absent: text. A family says it by itself.",
    )
    towers: dict[Modality, OriginConfig] | None = Field(
        None,
        min_length=1,
        exclude_if=absent,
        description="In place of path and family: an encoder for each modality, in order; train.layers.towers has their rates.",
    )
    fusion: FusionConfig | None = Field(None, exclude_if=absent, description="Of two towers or more; absent: concat.")
    layers_from: list[Annotated[int, Field(ge=0, le=10_000)]] | None = Field(
        None,
        exclude_if=absent,
        min_length=1,
        description="Keep these layers of the pretrained model alone, in this order, counted from 0: a smaller model to start from.",
    )
    share_layers: int | None = Field(
        None,
        exclude_if=absent,
        ge=1,
        le=10_000,
        description="So many layers have weights of their own and the others share them, in stretches of like length; 1: all share one layer's (ALBERT).",
    )
    task: Literal[
        "classification",
        "heads",
        "regression",
        "tagging",
        "spans",
        "masked_lm",
        "sentence_order",
        "next_sentence",
        "causal_lm",
        "seq2seq",
        "denoising",
        "captioning",
        "contrastive",
        "matching",
    ] = "classification"
    contrast: ContrastConfig | None = Field(
        None, exclude_if=absent, description="Of the tasks contrastive, matching and next_sentence."
    )
    masking: MaskingConfig | None = Field(None, description="Of task masked_lm; absent: 15% of the tokens.")
    adapter: AdapterConfig | None = Field(
        None,
        exclude_if=absent,
        description="Train small parts and the head; the model's own weights stay as they are.",
    )
    memory: MemoryConfig | None = Field(None, exclude_if=absent)
    denoising: DenoisingConfig | None = Field(
        None, exclude_if=absent, description="Of task denoising; absent: 15% of the tokens, with marks."
    )
    pooling: Literal["cls", "mean"] | None = Field(
        None,
        exclude_if=absent,
        description="What a head for classes or numbers reads: the first token, or the mean over a row's tokens. Absent: cls, or as the family does.",
    )
    head_weights: dict[str, Annotated[float, Field(gt=0.0, le=1e6)]] = Field(
        {}, exclude_if=absent, description="Of task heads: head -> weight of its loss; absent: 1."
    )
    dropout: float | None = Field(
        None,
        ge=0.0,
        lt=1.0,
        description="Overrides every dropout rate of the encoder and its head; absent: the model's own.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> ModelConfig:
        if self.towers is None:
            self._check_origin()
        else:
            self._check_towers(self.towers)
        if self.fusion is not None and len(self.towers or {}) < 2:
            raise ValueError("fusion joins towers; name two or more in towers")
        if self.layers_from is not None and self.path is None:
            raise ValueError("layers_from picks layers of a pretrained model (path); one from scratch has its size")
        if self.adapter is not None and self.path is None:
            raise ValueError(
                "adapter changes a pretrained model: give path; one from scratch (family) has to be trained whole"
            )
        if self.adapter is not None and self.reads != ("text",):
            raise ValueError(f"adapter changes a model of text, and this one reads {', '.join(self.reads)}")
        if self.memory is not None and (self.adapter is not None or self.reads != ("text",)):
            raise ValueError("memory belongs to a model of text that is trained whole, without adapter")
        if self.attends and self.path is None:
            raise ValueError(f"memory of task {self.task} is embedded by a pretrained model: give path")
        if self.share_layers is not None and self.reads != ("text",):
            raise ValueError(f"share_layers belongs to a model of text, and this one reads {', '.join(self.reads)}")
        if self.share_layers is not None and self.adapter is not None:
            raise ValueError("share_layers and adapter do not go together: an adapter belongs to one layer")
        if self.modalities is not None and self.path is None:
            raise ValueError(f"modalities belongs to path; family {self.family} reads {', '.join(self.reads)}")
        if len(set(self.modalities or ())) != len(self.modalities or ()):
            raise ValueError(f"modalities {self.modalities} repeats one")
        allowed = (*ROWWISE, *COMPARED, *CAPTIONED, *(BESIDE if "text" in self.reads else ()))
        if self.reads != ("text",) and self.task not in allowed:
            raise ValueError(
                f"task {self.task} reads text, and this model reads {', '.join(self.reads)}; allowed: {', '.join(allowed)}"
            )
        if self.task in BESIDE and self.towers is not None:
            if len(self.towers) < 2 or "text" not in self.towers:
                raise ValueError(f"task {self.task} finds words of a text: name text in towers, and another beside it")
            if self.fusion is None or self.fusion.kind not in MIXING:
                raise ValueError(
                    f"task {self.task} needs words that see the other towers: set fusion.kind to {', '.join(MIXING)}"
                )
        if self.task in CAPTIONED and (len(self.reads) < 2 or "text" not in self.reads or self.fusion):
            raise ValueError(
                f"task {self.task} writes a text for what other towers read: name text (a model whose tokens see the left) and another in"
                " towers, and no fusion"
            )
        if self.task == "contrastive" and (len(self.reads) != 2 or self.fusion is not None):
            raise ValueError("task contrastive compares two towers and joins none: name two in towers, and no fusion")
        if self.task == "matching" and (len(self.reads) < 2 or "text" not in self.reads):
            raise ValueError(
                "task matching asks whether a text belongs to the rest of a row: name text and another in towers"
            )
        if self.task == "matching" and self.towers and (self.fusion is None or self.fusion.kind in ADDITIVE):
            raise ValueError(
                "task matching needs towers whose words are weighed against each other, and concat and decision add what each says alone: set"
                " fusion.kind to product, gated, interactive, transformer or cross"
            )
        if self.contrast is not None and self.task not in GROUPED:
            raise ValueError(f"contrast belongs to the tasks {', '.join(GROUPED)}, found task={self.task}")
        if self.pooling is not None and self.task not in POOLED:
            raise ValueError(
                f"pooling belongs to tasks with an answer a row ({', '.join(POOLED)}), found task={self.task}"
            )
        if self.head_weights and self.task != "heads":
            raise ValueError(f"head_weights belongs to task heads, found task={self.task}")
        if self.masking is not None and self.task not in ("masked_lm", *PAIRED):
            raise ValueError(f"masking belongs to the tasks masked_lm, {', '.join(PAIRED)}, found task={self.task}")
        if self.denoising is not None and self.task != "denoising":
            raise ValueError(f"denoising belongs to task denoising, found task={self.task}")
        return self

    def _check_towers(self, towers: dict[Modality, OriginConfig]) -> None:
        for key in ("path", "family", "size", "tokenizer"):
            if getattr(self, key) is not None:
                raise ValueError(f"{key} belongs to a model of one encoder; towers have their own")
        for name, tower in towers.items():
            try:
                tower._check_origin()
            except ValueError as error:
                raise ValueError(f"towers.{name}: {error}") from None
            if tower.family is not None and FAMILIES[tower.family] != name:
                raise ValueError(f"towers.{name}: family {tower.family} reads {FAMILIES[tower.family]}")

    @property
    def reads(self) -> tuple[str, ...]:
        """What the model reads of a row: the one place that says so. Everything that differs by it is a table with these names."""
        if self.towers is not None:
            return ordered(self.towers)
        if self.family is not None:
            return (FAMILIES[self.family],)
        return ordered(self.modalities or ("text",))

    @property
    def attends(self) -> bool:
        """Whether its memory is a part of it, which rows attend to."""
        return self.memory is not None and self.task not in RECALLING

    @property
    def recalls(self) -> bool:
        """Whether its memory is asked at each token that it gives, and made when the model is trained."""
        return self.memory is not None and self.task in RECALLING

    @property
    def parts(self) -> dict[str, OriginConfig]:
        """The spec's key of each encoder -> where it comes from."""
        if self.towers is not None:
            return {f"model.towers.{name}": tower for name, tower in self.towers.items()}
        return {"model": self}

    def reads_at(self, key: str) -> tuple[str, ...]:
        """What the encoder at a key of `parts` reads."""
        return self.reads if self.towers is None else (key.rpartition(".")[2],)

    @property
    def metric(self) -> str:
        """What decides the best checkpoint where the spec does not say."""
        return METRICS[self.task][0]
