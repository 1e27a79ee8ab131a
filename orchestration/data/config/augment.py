"""`data.augment`: changed copies of rows."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, field_validator, model_validator

from orchestration.data.config.kinds import Rate, Share, Span


class SkipConfig(BaseModel, extra="forbid", frozen=True):
    """Rows that an op leaves alone, since it would make their label wrong."""

    labels: list[str] = Field([], description="Classes, such as [left, right] for a flip.")
    words: list[str] = Field([], description="Words of the text, whole and in any case, such as [left, right].")


class OpConfig(BaseModel, extra="forbid", frozen=True):
    skip: SkipConfig | None = None


class SynonymsConfig(OpConfig):
    """Replace words by synonyms: each eligible word with probability `rate`, one at least where there is one."""

    op: Literal["synonyms"] = "synonyms"
    rate: Rate = 0.1
    unit: Literal["word", "phrase"] = Field(
        "word", description="phrase: lemmas of several words (take place, motion picture) are replaced too."
    )
    thesaurus: str = Field(
        "catalog:wordnet",
        description="`catalog:wordnet` or a folder of WordNet database files (English); `catalog:cilin` (Chinese); or a .tsv"
        " file with a set of synonyms a line, divided by tabs.",
    )


class InsertConfig(OpConfig):
    """Insert a synonym of a random word at a random place, for `rate` of the words (EDA, Wei and Zou 2019)."""

    op: Literal["insert"] = "insert"
    rate: Rate = 0.1
    unit: Literal["word", "phrase"] = "word"
    thesaurus: str = "catalog:wordnet"


class SubstituteConfig(OpConfig):
    """Replace words by others of the same part of speech, for `rate` of the words. Meaning may change: mind the labels."""

    op: Literal["substitute"] = "substitute"
    rate: Rate = 0.1
    unit: Literal["word", "phrase"] = "word"
    thesaurus: str = "catalog:wordnet"


class DeleteConfig(OpConfig):
    """Leave out words, each with probability `rate`; one stays. phrase: runs of two to four words between punctuation marks."""

    op: Literal["delete"] = "delete"
    rate: Rate = 0.1
    unit: Literal["word", "phrase"] = "word"


class SwapConfig(OpConfig):
    """Exchange two random words, for `rate` of the words. phrase: neighbouring phrases between punctuation marks."""

    op: Literal["swap"] = "swap"
    rate: Rate = 0.1
    unit: Literal["word", "phrase"] = "word"


class VoiceConfig(OpConfig):
    """Active to passive and back, tense and number kept, where the parse is sure; other sentences stay as they are (English)."""

    op: Literal["voice"] = "voice"
    to: Literal["passive", "active", "either"] = "either"
    rate: Rate = Field(1.0, description="Probability a sentence.")
    tagger: str = Field("catalog:english-tagger", description="Part-of-speech tagger; JSON of an averaged perceptron.")


class CropConfig(OpConfig):
    """Random crop of the image (all frames alike), scaled back to data.image.size."""

    op: Literal["crop"] = "crop"
    scale: Span = Field([0.7, 1.0], description="Lowest and highest share of the area that stays.")

    @field_validator("scale")
    @classmethod
    def _shares(cls, scale: list[float]) -> list[float]:
        if not 0.0 < scale[0] <= scale[1] <= 1.0:
            raise ValueError(f"{scale}: shares of the area are above 0 and at most 1")
        return scale


class RotateConfig(OpConfig):
    op: Literal["rotate"] = "rotate"
    degrees: float = Field(
        15.0, gt=0.0, le=180.0, description="Uniform in plus or minus so many degrees; edges repeat."
    )


class FlipConfig(OpConfig):
    op: Literal["flip"] = "flip"
    rate: Rate = 0.5
    axis: Literal["horizontal", "vertical"] = "horizontal"


class ColourConfig(OpConfig):
    """Brightness, contrast and saturation, each times a factor uniform in 1 plus or minus its number."""

    op: Literal["colour"] = "colour"
    brightness: Share = 0.2
    contrast: Share = 0.2
    saturation: Share = 0.2


class NoiseConfig(OpConfig):
    """White noise on audio (or, in units of each column's deviation, on a series)."""

    op: Literal["noise"] = "noise"
    snr_db: Span = Field([10.0, 30.0], description="Signal to noise, uniform between the two.")


class TimeMaskConfig(OpConfig):
    """Silence in stretches of time (SpecAugment, Park et al. 2019)."""

    op: Literal["time_mask"] = "time_mask"
    share: Rate = Field(0.1, description="Longest stretch as a share of the row.")
    count: int = Field(1, ge=1, le=20)


class FrequencyMaskConfig(OpConfig):
    """Take out bands of frequency (SpecAugment, on the waveform)."""

    op: Literal["frequency_mask"] = "frequency_mask"
    share: Rate = Field(0.1, description="Widest band as a share of half the sample rate.")
    count: int = Field(1, ge=1, le=20)


TEXT_OPS = ("synonyms", "insert", "substitute", "delete", "swap", "voice")
IMAGE_OPS = ("crop", "rotate", "flip", "colour")
AUDIO_OPS = ("noise", "time_mask", "frequency_mask")

Op = Annotated[
    SynonymsConfig
    | InsertConfig
    | SubstituteConfig
    | DeleteConfig
    | SwapConfig
    | VoiceConfig
    | CropConfig
    | RotateConfig
    | FlipConfig
    | ColourConfig
    | NoiseConfig
    | TimeMaskConfig
    | FrequencyMaskConfig,
    Field(discriminator="op"),
]


class FilterConfig(BaseModel, extra="forbid", frozen=True):
    """What an augmented text must keep; one that fails is drawn again, `tries` times."""

    min_kept: Share = Field(0.5, description="Share of the row's words that are still there.")
    keep_negation: bool = Field(True, description="As many words like not, never, 没有 as before.")
    grammar: bool = Field(True, description="No doubled word, no lone article, brackets and quotes still paired.")
    tries: int = Field(3, ge=1, le=50)


class AugmentConfig(BaseModel, extra="forbid", frozen=True):
    """Augmented copies of training rows. Copy 0 is always the row as it is."""

    when: Literal["prepare", "epoch"] = Field(
        "prepare",
        description="prepare: copies are stored beside their row. epoch: nothing is stored, each epoch sees every row in"
        " another form, the same one after a resume.",
    )
    copies: int = Field(1, ge=1, le=100, description="Augmented copies a row.")
    until: int | None = Field(
        None, ge=1, le=10**12, description="Wanted training rows with copies, instead of `copies` a row."
    )
    pick: Literal["all", "one"] = Field("all", description="all: every op in order. one: a random op for each copy.")
    ops: list[Op] = Field(min_length=1)
    filter: FilterConfig | None = None

    @model_validator(mode="after")
    def _together(self) -> AugmentConfig:
        if self.when == "epoch" and (self.until is not None or self.copies != 1):
            raise ValueError("when: epoch changes rows in place of copies; leave copies and until out")
        return self
