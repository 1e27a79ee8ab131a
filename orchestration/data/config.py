"""The `data` part of the spec. Pydantic only: importing it loads no Ray, torch or pyarrow."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, field_validator, model_validator

Slug = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
Rows = Annotated[int, Field(ge=0, le=10**12)]
Fraction = Annotated[float, Field(gt=0.0, lt=1.0)]

FORMATS = {".txt": "text", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}


class LabelConfig(BaseModel, extra="forbid", frozen=True):
    """Where a row's label comes from: a column whose values are labels, or a numeric column cut by `rules`."""

    column: str = Field(description="Column that holds the label or the score.")
    rules: dict[str, str] | None = Field(
        None,
        description="label -> comparison with a number, e.g. {negative: '< 0', positive: '> 0'}. A row that no rule"
        " matches is dropped and counted.",
    )

    @field_validator("rules")
    @classmethod
    def _comparisons(cls, rules: dict[str, str] | None) -> dict[str, str] | None:
        for label, text in (rules or {}).items():
            parse_rule(text, label)
        return rules


class SourceConfig(BaseModel, extra="forbid", frozen=True):
    """One corpus: files of one format under one name."""

    name: Slug = Field(description="Part of every row's identity: rename it and all row ids change.")
    path: str = Field(
        min_length=1,
        description="A file, folder, glob, fsspec URL or `catalog:NAME`. Relative paths start at the spec's folder.",
    )
    format: Literal["auto", "text", "jsonl", "csv", "parquet", "datasets"] = "auto"
    text: str = Field(
        "text",
        description="Column that holds the text. A text file has one row a line, in column `text`, and its name without"
        " ending in column `file` (one file a class: label: {column: file}).",
    )
    label: LabelConfig | None = None
    group: str | None = Field(None, description="Column whose equal values stay in one split.")


class CleanConfig(BaseModel, extra="forbid", frozen=True):
    normalize: Literal["NFC", "NFKC", "none"] = "NFC"
    min_chars: int = Field(1, ge=1, le=10**6)
    max_chars: int = Field(20_000, ge=1, le=10**8, description="Longer rows are dropped and counted.")
    drop_duplicates: bool = Field(
        True, description="Keep one row for each normalised text (the one with the smallest row id)."
    )

    @model_validator(mode="after")
    def _ordered(self) -> CleanConfig:
        if self.min_chars > self.max_chars:
            raise ValueError(f"min_chars={self.min_chars} is above max_chars={self.max_chars}")
        return self


class SplitConfig(BaseModel, extra="forbid", frozen=True):
    """Rows go to splits by a hash of their group (or normalised text), so equal texts never straddle. A whole number is
    rows (of the smallest hashes), a fraction is a share by threshold. The rest is the training split."""

    validation: Rows | Fraction = 0.1
    test: Rows | Fraction = 0.1

    @model_validator(mode="after")
    def _room(self) -> SplitConfig:
        if isinstance(self.validation, float) and isinstance(self.test, float) and self.validation + self.test >= 1.0:
            raise ValueError(
                f"validation={self.validation} + test={self.test} leave no training rows; their sum must be below 1"
            )
        return self


class SynonymsConfig(BaseModel, extra="forbid", frozen=True):
    """Replace words by WordNet synonyms: each eligible word with probability `rate`, one at least where there is one."""

    op: Literal["synonyms"] = "synonyms"
    rate: float = Field(0.1, gt=0.0, le=1.0)
    thesaurus: str = Field("catalog:wordnet", description="`catalog:wordnet`, or a folder of WordNet database files.")


class AugmentConfig(BaseModel, extra="forbid", frozen=True):
    """Adds augmented copies of training rows. Copy 0 is always the row as it is."""

    copies: int = Field(1, ge=1, le=100, description="Augmented copies a row.")
    ops: list[SynonymsConfig] = Field(min_length=1, description="Applied in order to each copy.")


class TokenizeConfig(BaseModel, extra="forbid", frozen=True):
    max_length: int = Field(
        128,
        ge=2,
        le=131_072,
        description="Tokens a row, special tokens counted; longer rows are truncated and counted.",
    )


class DataConfig(BaseModel, extra="forbid", frozen=True):
    """A corpus and what `prepare` makes of it."""

    sources: list[SourceConfig] = Field(min_length=1)
    labels: list[str] = Field(min_length=2, description="The classes, in the order of the model's outputs.")
    clean: CleanConfig = CleanConfig()
    split: SplitConfig = SplitConfig()
    augment: AugmentConfig | None = None
    tokenize: TokenizeConfig = TokenizeConfig()
    max_bad_rows: int = Field(
        100, ge=0, le=10**9, description="Unreadable rows that are skipped and shown before the run is refused."
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
        for source in self.sources:
            if source.label is None:
                raise ValueError(
                    f"source {source.name!r} has no label, and the task is classification; add label: {{column: ...}}"
                )
            for label in source.label.rules or {}:
                if label not in self.labels:
                    raise ValueError(
                        f"source {source.name!r} has a rule for label {label!r}, which is not in labels {self.labels}"
                    )
        return self


def parse_rule(text: str, label: str) -> tuple[str, float]:
    """`'< 0'` -> `('<', 0.0)`. Raises ValueError naming the label and what is allowed."""
    stripped = text.strip()
    for sign in ("<=", ">=", "==", "<", ">"):
        if stripped.startswith(sign):
            try:
                return sign, float(stripped[len(sign) :])
            except ValueError:
                break
    raise ValueError(
        f"rule for label {label!r} is {text!r}; write a comparison with a number: '< 0', '<= 2', '== 1', '>= 3', '> 4'"
    )
