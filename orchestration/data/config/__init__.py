"""The `data` part of the spec. Pydantic only: importing it loads no Ray, torch or pyarrow."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field, model_validator

from orchestration.data.config import knowledge, targets
from orchestration.data.config.augment import (
    AUDIO_OPS,
    IMAGE_OPS,
    TEXT_OPS,
    AugmentConfig,
    ColourConfig,
    CropConfig,
    DeleteConfig,
    FilterConfig,
    FlipConfig,
    FrequencyMaskConfig,
    InsertConfig,
    NoiseConfig,
    RotateConfig,
    SkipConfig,
    SubstituteConfig,
    SwapConfig,
    SynonymsConfig,
    TimeMaskConfig,
    VoiceConfig,
)
from orchestration.data.config.clean import (
    CleanConfig,
    CodeConfig,
    LanguageConfig,
    NearDuplicatesConfig,
    QualityConfig,
)
from orchestration.data.config.entries import AudioConfig, FimConfig, ImageConfig, SeriesConfig, TokenizeConfig
from orchestration.data.config.kinds import Slug, absent
from orchestration.data.config.knowledge import KnowledgeConfig
from orchestration.data.config.rows import MixConfig, SplitConfig, StreamConfig
from orchestration.data.config.sources import FORMATS, TREES, LabelConfig, SourceConfig, parse_rule
from orchestration.data.config.targets import SpanConfig

__all__ = [
    "AUDIO_OPS",
    "FORMATS",
    "IMAGE_OPS",
    "TEXT_OPS",
    "TREES",
    "AudioConfig",
    "AugmentConfig",
    "CleanConfig",
    "CodeConfig",
    "ColourConfig",
    "CropConfig",
    "DataConfig",
    "DeleteConfig",
    "FilterConfig",
    "FimConfig",
    "FlipConfig",
    "FrequencyMaskConfig",
    "ImageConfig",
    "InsertConfig",
    "KnowledgeConfig",
    "LabelConfig",
    "LanguageConfig",
    "MixConfig",
    "NearDuplicatesConfig",
    "NoiseConfig",
    "QualityConfig",
    "RotateConfig",
    "SeriesConfig",
    "SkipConfig",
    "Slug",
    "SourceConfig",
    "SpanConfig",
    "SplitConfig",
    "StreamConfig",
    "SubstituteConfig",
    "SwapConfig",
    "SynonymsConfig",
    "TimeMaskConfig",
    "TokenizeConfig",
    "VoiceConfig",
    "op_inputs",
    "parse_rule",
]


class DataConfig(BaseModel, extra="forbid", frozen=True):
    """A corpus and what `prepare` makes of it."""

    sources: list[SourceConfig] = Field(min_length=1)
    labels: list[str] = Field(
        [], description="The classes, in the order of the model's outputs; empty: rows without labels."
    )
    heads: dict[Slug, list[str]] = Field(
        {},
        exclude_if=absent,
        description="head -> its classes, for rows with several labels; sources give them in `labels`.",
    )
    tags: list[str] = Field(
        [],
        exclude_if=absent,
        description="Tags of words in the order of the model's outputs, such as [O, B-PER, I-PER].",
    )
    clean: CleanConfig = CleanConfig()
    split: SplitConfig = SplitConfig()
    balance: Literal["up", "down", "augment"] | None = Field(
        None,
        description="Same number of training rows a class. up: rows of smaller classes repeat. down: rows of larger ones"
        " leave. augment: smaller classes get augmented copies.",
    )
    augment: AugmentConfig | None = None
    tokenize: TokenizeConfig = TokenizeConfig()
    image: ImageConfig = ImageConfig()
    audio: AudioConfig = AudioConfig()
    series: SeriesConfig = SeriesConfig()
    knowledge: KnowledgeConfig | None = Field(None, exclude_if=absent)
    mix: MixConfig | None = None
    stream: StreamConfig | None = None
    max_bad_rows: int = Field(
        100, ge=0, le=10**9, description="Unreadable rows that are skipped and shown before the run is refused."
    )
    max_record_bytes: int = Field(
        10_000_000, ge=1000, le=10**9, description="Longer records are unusable rows; never read whole."
    )
    shard_rows: int = Field(
        8192, ge=16, le=10**7, description="Input records a shard: the unit of work, memory and restart."
    )

    @model_validator(mode="after")
    def _consistent(self) -> DataConfig:
        names = [source.name for source in self.sources]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(
                    f"two sources are named {name!r}; names are part of every row's identity, make them distinct"
                )
        if len(set(self.labels)) != len(self.labels):
            raise ValueError(f"labels {self.labels} repeat a class")
        if len(self.labels) == 1:
            raise ValueError(
                f"labels {self.labels} is a single class; name two or more, or none for rows without labels"
            )
        for source in self.sources:
            if self.labels and source.label is None:
                raise ValueError(
                    f"source {source.name!r} has no label, and data.labels names classes; add label: {{column: ...}}"
                )
            if source.label is not None and not self.labels:
                raise ValueError(f"source {source.name!r} has a label, but data.labels is empty; name the classes")
            for label in source.label.rules or {} if source.label else {}:
                if label not in self.labels:
                    raise ValueError(
                        f"source {source.name!r} has a rule for label {label!r}, which is not in labels {self.labels}"
                    )
        self._possible()
        targets.check(self)
        knowledge.check(self)
        return self

    def _possible(self) -> None:
        """Parts that exclude each other, or need another."""
        if self.tokenize.pack and self.labels:
            raise ValueError(
                "tokenize.pack joins rows into one entry, which cannot have a label each; leave labels empty"
            )
        if self.tokenize.pack and any(source.media or source.series for source in self.sources):
            raise ValueError(
                "tokenize.pack joins rows of text alone; a source with image, audio or series cannot be packed"
            )
        if self.tokenize.pack and self.split.folds:
            raise ValueError(
                "tokenize.pack joins rows of different folds into one entry; leave split.folds or pack out"
            )
        if self.balance and not self.labels:
            raise ValueError(f"balance: {self.balance} needs classes; name them in labels")
        if self.balance == "augment" and (self.augment is None or self.augment.when == "epoch"):
            raise ValueError("balance: augment needs `augment` with ops and when: prepare")
        if self.balance == "up" and self.augment is not None and self.augment.when == "prepare":
            raise ValueError("balance: up repeats rows as they are; with augment use balance: augment, or when: epoch")
        if self.balance == "augment" and self.augment and self.augment.until is not None:
            raise ValueError("balance: augment adds copies until the classes are equal; leave augment.until out")
        given = [source.name for source in self.sources if source.split is not None]
        if given and (self.split.folds or self.split.stratify):
            key = "folds" if self.split.folds else "stratify"
            raise ValueError(
                f"source {given[0]!r} names its split, and split.{key} deals rows out; leave one of the two out"
            )
        if self.split.stratify and not self.labels:
            raise ValueError("split.stratify needs classes; name them in labels")
        if self.augment and self.augment.when == "epoch":
            if self.tokenize.pack:
                raise ValueError("augment.when: epoch cannot change rows that tokenize.pack has joined")
            if self.tokenize.long == "windows":
                raise ValueError("augment.when: epoch cannot change rows that tokenize.long: windows has cut")
            if self.tokenize.fim is not None:
                raise ValueError("augment.when: epoch cannot change rows that tokenize.fim has arranged")
        for op in self.augment.ops if self.augment else []:
            for label in op.skip.labels if op.skip else []:
                if label not in self.labels:
                    raise ValueError(f"augment: op {op.op} skips label {label!r}, which is not in labels {self.labels}")
        if self.stream is not None:
            self._streamable()

    def _streamable(self) -> None:
        """While training runs nothing is known of rows still to come."""
        if not (isinstance(self.split.validation, float) and isinstance(self.split.test, float)):
            raise ValueError(
                "stream: rows are assigned as they come, so split.validation and split.test must be fractions"
            )
        for what, given in {
            "split.stratify": self.split.stratify,
            "split.folds": self.split.folds,
            "balance": self.balance,
            "mix": self.mix,
            "clean.near_duplicates": self.clean.near_duplicates,
            "augment.until": self.augment.until if self.augment else None,
        }.items():
            if given:
                raise ValueError(f"stream: {what} needs all rows to be known first; leave one of the two out")


def op_inputs(config: DataConfig) -> list[tuple[str, str, str]]:
    """(key path, reference, kind of catalogue entry) of each file beside the sources: of an augmentation op, of knowledge."""
    found = []
    for i, op in enumerate(config.augment.ops if config.augment else []):
        for key, kind in (("thesaurus", "thesaurus"), ("tagger", "tagger")):
            if (reference := getattr(op, key, None)) is not None:
                found.append((f"data.augment.ops[{i}].{key}", reference, kind))
    if config.knowledge is not None:
        found.append(("data.knowledge.path", config.knowledge.path, "graph"))
    return found
