"""Where an encoder comes from: the keys of the `model` part that a tower has too. Pydantic only: importing it loads no torch or transformers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, model_validator

# What a model can be made of from scratch -> what it reads. transformers' names, and our own encoders of sound and series.
FAMILIES: dict[str, str] = {
    **dict.fromkeys(("bert", "roberta", "distilbert", "gpt2", "llama", "t5", "bart"), "text"),
    **dict.fromkeys(("vit", "resnet", "vgg", "efficientnet", "mobilenet_v2"), "image"),
    "audio": "audio",
    "series": "series",
}
FamilyName = Literal[
    "bert",
    "roberta",
    "distilbert",
    "gpt2",
    "llama",
    "t5",
    "bart",
    "vit",
    "resnet",
    "vgg",
    "efficientnet",
    "mobilenet_v2",
    "audio",
    "series",
]


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


class VocabularyConfig(BaseModel, extra="forbid", frozen=True):
    """A tokenizer that is trained on the spec's own texts, once, before anything else is made of them."""

    train: Literal["bpe", "wordpiece", "unigram"] = Field(
        description="How: byte-level BPE, WordPiece (Chinese: single characters), Unigram (pieces of words and phrases)."
    )
    size: int = Field(8000, ge=2, le=10**6, description="Tokens in the vocabulary, special ones counted.")
    lowercase: bool = Field(False, description="Capital letters become small ones.")


class OriginConfig(BaseModel, extra="forbid", frozen=True):
    """Where an encoder comes from: a pretrained folder, or nothing but a size."""

    path: str | None = Field(
        None,
        min_length=1,
        description="A folder with config.json, safetensors and tokenizer (of images preprocessor_config.json), or `catalog:NAME`."
        " Relative paths start at the spec's folder.",
    )
    family: FamilyName | None = Field(None, description="In place of path: from scratch, with random weights.")
    size: Literal["tiny", "mini", "small", "base"] | SizeConfig | None = Field(
        None, description="Of a model from scratch: a name (Turc et al. 2019) or numbers; absent: mini."
    )
    tokenizer: Annotated[str, Field(min_length=1)] | VocabularyConfig | None = Field(
        None,
        description="Of a model from scratch that reads text: a folder with tokenizer.json, `catalog:NAME`, or how to train one.",
    )

    def _check_origin(self) -> None:
        if (self.path is None) == (self.family is None):
            raise ValueError("give path (a pretrained model) or family (one from scratch), and not both")
        if self.path is not None:
            for key in ("size", "tokenizer"):
                if getattr(self, key) is not None:
                    raise ValueError(f"{key} belongs to a model from scratch (family); a folder at path has its own")
        elif FAMILIES[self.family or ""] != "text":
            if self.tokenizer is not None:
                raise ValueError(f"tokenizer belongs to a model that reads text; {self.family} does not")
        elif self.tokenizer is None:
            raise ValueError(
                "a model from scratch needs tokenizer: a folder with tokenizer.json, catalog:NAME, or {train: unigram, size: 8000}"
            )

    @property
    def folder(self) -> str:
        """Where files come from: the pretrained model, or the tokenizer of one from scratch; '' where nothing does."""
        return self.path or (self.tokenizer if isinstance(self.tokenizer, str) else "")

    @property
    def folder_key(self) -> str:
        """The key for it."""
        return "path" if self.path is not None else "tokenizer"

    @property
    def numbers(self) -> SizeConfig:
        """Size of a model from scratch."""
        return self.size if isinstance(self.size, SizeConfig) else SIZES[self.size or "mini"]
