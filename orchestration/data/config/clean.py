"""`data.clean`: which rows stay, and how their text is stored."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field, model_validator

from orchestration.data.config.kinds import Share, Span


class LanguageConfig(BaseModel, extra="forbid", frozen=True):
    keep: list[str] = Field(min_length=1, description="ISO 639-1 codes of the languages that stay, such as [en, zh].")
    min_probability: Share = Field(0.5, description="Of the likeliest language; less sure rows leave.")


class QualityConfig(BaseModel, extra="forbid", frozen=True):
    """Rules of the Gopher and C4 papers. A row that breaks one leaves under that rule's name."""

    max_symbol_ratio: Share = Field(0.3, description="Characters that are neither letter, digit nor white space.")
    min_alpha_words: Share = Field(0.6, description="Share of words with a letter.")
    max_repeated_lines: Share = Field(0.3, description="Share of lines that occur before in the row.")
    max_repeated_ngrams: Share = Field(0.3, description="Share of words inside repeated 3-grams.")
    mean_word_chars: Span = Field([1.5, 12.0], description="Lowest and highest mean length of words.")


class NearDuplicatesConfig(BaseModel, extra="forbid", frozen=True):
    """MinHash with LSH (Broder 1997; Leskovec et al., Mining of Massive Datasets, 3.4). Of each group of rows joined by pairs of
    at least `threshold` Jaccard similarity the row with the smallest id stays."""

    threshold: float = Field(0.8, ge=0.3, le=0.99)
    shingle: int = Field(5, ge=1, le=50, description="Characters (or words) a shingle.")
    unit: Literal["chars", "words"] = "chars"
    permutations: int = Field(128, ge=16, le=1024)


class CodeConfig(BaseModel, extra="forbid", frozen=True):
    """Filters of source files; their columns are text, file, language, licence."""

    languages: list[str] | None = Field(None, min_length=1, description="Such as [python, rust]; absent: all known.")
    licences: list[str] | None = Field(
        None, min_length=1, description="SPDX names that stay, such as [MIT, Apache-2.0, PSF-2.0]; absent: all."
    )
    unknown_licence: Literal["keep", "drop"] = "drop"


class CleanConfig(BaseModel, extra="forbid", frozen=True):
    normalize: Literal["NFC", "NFKC", "none"] = "NFC"
    markup: bool = Field(False, description="Remove tags, comments, scripts; replace entities by their characters.")
    boilerplate: bool = Field(False, description="Remove lines of menus, cookie notices, copyright and share buttons.")
    min_chars: int = Field(1, ge=1, le=10**6)
    max_chars: int = Field(20_000, ge=1, le=10**8, description="Longer rows are dropped and counted.")
    min_words: int = Field(0, ge=0, le=10**6)
    language: LanguageConfig | None = None
    quality: QualityConfig | None = None
    code: CodeConfig | None = None
    drop_duplicates: bool = Field(
        True, description="Keep one row for each normalised text (the one with the smallest row id)."
    )
    near_duplicates: NearDuplicatesConfig | None = None

    @model_validator(mode="after")
    def _ordered(self) -> CleanConfig:
        if self.min_chars > self.max_chars:
            raise ValueError(f"min_chars={self.min_chars} is above max_chars={self.max_chars}")
        return self
