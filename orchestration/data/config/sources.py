"""`data.sources`: where rows come from."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field, field_validator, model_validator

from orchestration.data.config.kinds import Slug, absent
from orchestration.data.config.targets import SpanConfig, check_source

# Ending -> format of files that hold many records each.
FORMATS = {".txt": "text", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}
FORMATS |= {".tar": "webdataset"}
TREES = ("code", "images", "audio", "video")  # one record a file; always named in the spec


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
        description="A file, folder, glob, fsspec URL (s3://, gs://, hf://) or `catalog:NAME`. Relative paths start at the"
        " spec's folder.",
    )
    format: Literal[
        "auto",
        "text",
        "jsonl",
        "csv",
        "parquet",
        "datasets",
        "webdataset",
        "series",
        "code",
        "images",
        "audio",
        "video",
    ] = Field(
        "auto",
        description="`auto` goes by the ending. code, images, audio and video are folders with one record a file; series"
        " cuts the rows of CSV or Parquet files into windows.",
    )
    text: str | None = Field(
        "text",
        description="Column that holds the text; null: rows without text. A text file has one row a line, in column `text`,"
        " and its name without ending in column `file` (one file a class: label: {column: file}).",
    )
    image: str | None = Field(None, description="Column of image bytes; images and video have it as `image`.")
    audio: str | None = Field(None, description="Column of audio bytes; audio has it as `audio`.")
    series: list[str] | None = Field(
        None, min_length=1, description="Numeric columns of a series; format series needs them."
    )
    label: LabelConfig | None = None
    value: str | None = Field(
        None, exclude_if=absent, description="Column of a finite number that the model is to give (regression)."
    )
    pair: str | None = Field(
        None,
        exclude_if=absent,
        description="Column of a second text: the ids are the tokenizer's form for two, cut longest first to max_length.",
    )
    target: str | None = Field(
        None, exclude_if=absent, description="Column of the text that the model is to write, in tokens of its own."
    )
    tags: str | None = Field(
        None,
        exclude_if=absent,
        description="Column of a tag a word: a list, or a string divided by white space, and so is the text. data.tags names"
        " the tags.",
    )
    span: SpanConfig | None = Field(
        None, exclude_if=absent, description="Part of the row's text that answers (extraction)."
    )
    labels: dict[Slug, LabelConfig] | None = Field(
        None,
        min_length=1,
        exclude_if=absent,
        description="head -> label, for several labels a row; data.heads names the classes of each head. A row without a value"
        " for a head has none there (-1).",
    )
    split: Literal["train", "validation", "test"] | None = Field(
        None, exclude_if=absent, description="All of its rows go there; absent: data.split deals them out."
    )
    group: str | None = Field(None, description="Column whose equal values stay in one split.")
    weight: float = Field(
        1.0, gt=0.0, le=1e6, description="Share of an epoch's rows relative to the others, with data.mix."
    )

    @model_validator(mode="after")
    def _fits(self) -> SourceConfig:
        if (self.format == "series") != (self.series is not None):
            raise ValueError("format series and the key `series` (its numeric columns) go together")
        if self.format == "series" and "text" not in self.model_fields_set:
            object.__setattr__(self, "text", None)  # rows of numbers have none unless the spec names a column
        if self.text is None and not (self.media or self.series):
            raise ValueError("text: null leaves a row without any content; name its image, audio or series")
        check_source(self)
        return self

    @property
    def media(self) -> dict[str, str]:
        """Kind (image, audio) -> column, with the column that a tree of such files has by itself."""
        own = {"images": ("image", "image"), "video": ("image", "image"), "audio": ("audio", "audio")}
        kind, column = own.get(self.format, ("", ""))
        found = {"image": self.image, "audio": self.audio} | ({kind: column} if kind else {})
        return {name: value for name, value in found.items() if value is not None}

    @property
    def targets(self) -> dict[str, str]:
        """Spec key -> column of what the row teaches beside its class."""
        named = {"value": self.value, "pair": self.pair, "target": self.target, "tags": self.tags}
        if self.span is not None:
            named |= {"span.text": self.span.text, "span.start": self.span.start}
        named |= {f"labels.{head}.column": label.column for head, label in (self.labels or {}).items()}
        return {key: column for key, column in named.items() if column is not None}


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
