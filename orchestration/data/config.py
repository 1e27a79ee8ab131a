"""The `data` part of the spec. Pydantic only: importing it loads no Ray, torch or pyarrow."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, field_validator, model_validator

Slug = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
Rows = Annotated[int, Field(ge=0, le=10**12)]
Fraction = Annotated[float, Field(gt=0.0, lt=1.0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Rate = Annotated[float, Field(gt=0.0, le=1.0)]
Span = Annotated[list[float], Field(min_length=2, max_length=2)]

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
    group: str | None = Field(None, description="Column whose equal values stay in one split.")
    weight: float = Field(
        1.0, gt=0.0, le=1e6, description="Share of an epoch's rows relative to the others, with data.mix."
    )

    @model_validator(mode="after")
    def _fits(self) -> SourceConfig:
        if (self.format == "series") != (self.series is not None):
            raise ValueError("format series and the key `series` (its numeric columns) go together")
        if self.text is None and not (self.media or self.series):
            raise ValueError("text: null leaves a row without any content; name its image, audio or series")
        return self

    @property
    def media(self) -> dict[str, str]:
        """Kind (image, audio) -> column, with the column that a tree of such files has by itself."""
        own = {"images": ("image", "image"), "video": ("image", "image"), "audio": ("audio", "audio")}
        kind, column = own.get(self.format, ("", ""))
        found = {"image": self.image, "audio": self.audio} | ({kind: column} if kind else {})
        return {name: value for name, value in found.items() if value is not None}


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


class SplitConfig(BaseModel, extra="forbid", frozen=True):
    """Rows go to splits by a hash of their group (or normalised text), so equal texts never straddle. A whole number is
    rows (of the smallest hashes), a fraction is a share by threshold. The rest is the training split."""

    validation: Rows | Fraction = 0.1
    test: Rows | Fraction = 0.1
    stratify: bool = Field(
        False, description="Take the same share of each class (a group counts as its first row's class)."
    )
    folds: int | None = Field(
        None,
        ge=2,
        le=100,
        description="k-fold: the rows outside the test split fall into k folds; train.fold says which one validates."
        " `validation` is not used then.",
    )

    @model_validator(mode="after")
    def _room(self) -> SplitConfig:
        if isinstance(self.validation, float) and isinstance(self.test, float) and self.validation + self.test >= 1.0:
            raise ValueError(
                f"validation={self.validation} + test={self.test} leave no training rows; their sum must be below 1"
            )
        return self


# ------------------------------------------------------------------------------------------------ augmentation


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
        if self.when == "epoch" and (self.until is not None or "copies" in self.model_fields_set):
            raise ValueError("when: epoch changes rows in place of copies; leave copies and until out")
        return self


# ------------------------------------------------------------------------------------------------ tokens and media


class FimConfig(BaseModel, extra="forbid", frozen=True):
    """Fill in the middle (Bavarian et al. 2022): prefix, suffix, middle of a random cut, between special tokens."""

    rate: Rate = 0.5
    tokens: list[str] = Field(
        ["<fim_prefix>", "<fim_middle>", "<fim_suffix>"],
        min_length=3,
        max_length=3,
        description="The tokenizer's names for prefix, middle and suffix.",
    )


class TokenizeConfig(BaseModel, extra="forbid", frozen=True):
    max_length: int = Field(128, ge=2, le=131_072, description="Tokens a row, special tokens counted.")
    long: Literal["truncate", "windows"] = Field(
        "truncate", description="Rows that are longer: cut (and counted), or made into several overlapping entries."
    )
    stride: int = Field(0, ge=0, le=131_072, description="Tokens that neighbouring windows share.")
    pack: bool = Field(
        False,
        description="Put several rows into one entry of at most max_length tokens, by best fit, with their lengths kept; for"
        " data without labels.",
    )
    fim: FimConfig | None = None

    @model_validator(mode="after")
    def _windows(self) -> TokenizeConfig:
        if self.stride and self.long != "windows":
            raise ValueError("stride is the overlap of windows; set long: windows")
        if self.stride > self.max_length // 2:
            raise ValueError(f"stride={self.stride} is above half of max_length={self.max_length}")
        return self


class ImageConfig(BaseModel, extra="forbid", frozen=True):
    """Stored as RGB bytes of size x size: the shorter side is scaled to `size`, the middle is kept."""

    size: int = Field(64, ge=8, le=1024, description="Pixels.")
    frames: int = Field(1, ge=1, le=256, description="Frames of a video, evenly spaced.")
    max_pixels: int = Field(50_000_000, ge=64, le=10**9, description="Larger images are unusable rows, never decoded.")


class AudioConfig(BaseModel, extra="forbid", frozen=True):
    """Stored as 16-bit mono samples."""

    rate: int = Field(16_000, ge=1000, le=192_000, description="Samples a second.")
    max_seconds: float = Field(10.0, gt=0.0, le=3600.0, description="Longer rows are cut and counted.")


class SeriesConfig(BaseModel, extra="forbid", frozen=True):
    """Windows of a numeric series."""

    window: int = Field(64, ge=1, le=1_000_000, description="Time steps a row.")
    stride: int = Field(64, ge=1, le=1_000_000, description="Time steps from one window's start to the next.")


class MixConfig(BaseModel, extra="forbid", frozen=True):
    """Epochs mix the sources by their `weight`."""

    stop: Literal["first", "all"] = Field(
        "all",
        description="first: an epoch ends before the first source would repeat. all: when every row of every source has come;"
        " smaller sources repeat.",
    )


class StreamConfig(BaseModel, extra="forbid", frozen=True):
    """Training starts while rows are still being prepared."""

    window: int = Field(8, ge=1, le=10_000, description="Shards among which rows are shuffled.")


class DataConfig(BaseModel, extra="forbid", frozen=True):
    """A corpus and what `prepare` makes of it."""

    sources: list[SourceConfig] = Field(min_length=1)
    labels: list[str] = Field(
        [], description="The classes, in the order of the model's outputs; empty: rows without labels."
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
        if self.split.stratify and not self.labels:
            raise ValueError("split.stratify needs classes; name them in labels")
        if self.augment and self.augment.when == "epoch":
            if self.tokenize.pack:
                raise ValueError("augment.when: epoch cannot change rows that tokenize.pack has joined")
            if self.tokenize.long == "windows":
                raise ValueError("augment.when: epoch cannot change rows that tokenize.long: windows has cut")
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
    """(key path, reference, kind of catalogue entry) of each file that an augmentation op reads."""
    found = []
    for i, op in enumerate(config.augment.ops if config.augment else []):
        for key, kind in (("thesaurus", "thesaurus"), ("tagger", "tagger")):
            if (reference := getattr(op, key, None)) is not None:
                found.append((f"data.augment.ops[{i}].{key}", reference, kind))
    return found


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
