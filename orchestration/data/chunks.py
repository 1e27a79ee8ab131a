"""When the ids of a text are the ids of its chunks, one after the other. Takes the parsed tokenizer.json; gives a function that
cuts a text into such chunks, or says (None) that this text needs the library whole. Called by tokenize.py alone; knows no ids.

Two families are cut. *words*: the pre-tokenizer drops white space (BERT), so a chunk is what stands between it. *spaces*: a chunk
is a word with the space before it (GPT-2's byte-level BPE, SentencePiece's Metaspace). Both lists are allow-lists: a part of a
tokenizer that is not named here, and a text with any character that Python and the tokenizer could see differently, goes
through the library. U+0020 is the only cut that needs trust: no normaliser named here looks or writes across it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Split = Callable[[str], "list[str] | None"]
Part = dict[str, Any]


@dataclass(frozen=True)
class Rule:
    split: Split
    anywhere: bool = True  # False: the first chunk of a text has ids that it has nowhere else


MODELS = ("WordPiece", "BPE", "Unigram", "WordLevel")
FRAMES = ("TemplateProcessing", "BertProcessing", "RobertaProcessing", "ByteLevel")
CANONICAL = ("NFC", "NFD", "Lowercase")  # leave white space as it is, whatever is around it
COMPATIBLE = ("NFKC", "NFKD")  # may write a space, but only inside a chunk or at its start
DROPS_SPACE = ("BertPreTokenizer", "Whitespace", "WhitespaceSplit")
# Split patterns of Llama 3 and Qwen 2, word for word: between single spaces no match crosses a space.
_CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PATTERNS = (_CL100K % "{1,3}", _CL100K % "")
MAX_HEADS = 32  # looking for more strings in each text costs more than it saves
SINGLES = re.compile(r" [^ ]*|[^ ]+")  # Metaspace: each space begins a piece, other white space is a letter
# GPT-2's own rules for runs of white space: the last space of a run belongs to the word behind it.
RUNS = re.compile(r" ?\S+|\s+(?!\S)|\s+")
RUNS_DIGITS = re.compile(r"\s+(?=[0-9])| ?\S+|\s+(?!\S)|\s+")  # Digits cuts first, so a run before a digit stays whole


def rule(tokenizer: Part) -> Rule | None:
    """How texts are cut for this tokenizer, or None: unknown to the allow-lists, or random (BPE dropout)."""
    normalizers, cutters = (
        _parts(tokenizer["normalizer"], "normalizers"),
        _parts(tokenizer["pre_tokenizer"], "pretokenizers"),
    )
    frames, model = _parts(tokenizer["post_processor"], "processors"), tokenizer["model"]
    holds = _finder(tokenizer["added_tokens"], bool(normalizers))
    if holds is None or model.get("type") not in MODELS or model.get("dropout"):
        return None
    if any(frame["type"] not in FRAMES for frame in frames):
        return None
    if _words(normalizers, cutters):
        return Rule(_split_words(holds, ascii_only=_ascii_only(normalizers)))
    if _metaspace(normalizers, cutters):
        split = _split_spaces(holds, _metaspace_runs(normalizers), ascii_only=_ascii_only(normalizers))
        return Rule(split, anywhere=cutters[0].get("prepend_scheme") != "first")
    if _byte_level(normalizers, cutters):
        return Rule(_split_spaces(holds, _runs(normalizers, cutters), ascii_only=False))
    return None


def separator(tokenizer: Part) -> str | None:
    """A special token that only its own text can give: set between chunks, it lets the library encode many at once."""
    unknown = tokenizer["model"].get("unk_token")
    for token in tokenizer["added_tokens"]:
        plain = not (token["lstrip"] or token["rstrip"] or token["single_word"])
        exact = not (token["normalized"] and tokenizer["normalizer"])
        if token["special"] and plain and exact and token["content"] != unknown:
            return str(token["content"])
    return None


def _parts(part: Part | None, inner: str) -> list[Part]:
    if part is None:
        return []
    return [leaf for one in part[inner] for leaf in _parts(one, inner)] if part["type"] == "Sequence" else [part]


def _finder(added: list[Part], normalizes: bool) -> Callable[[str], bool] | None:
    """Whether a text holds an added token; None: cannot be told cheaply. Looks for the tokens' first characters first."""
    if normalizes and any(token["normalized"] for token in added):
        return None  # matched after normalising: its forms in the raw text are not known here
    tokens = [token["content"] for token in added if token["content"]]
    heads = sorted({token[0] if not (token[0].isalnum() or token[0].isspace()) else token for token in tokens})
    if len(heads) > MAX_HEADS:
        return None

    def holds(text: str) -> bool:
        for head in heads:  # a plain loop: any() costs as much as the whole look-up of a short text
            if head in text:
                return any(token in text for token in tokens)
        return False

    return holds


def _ascii_only(normalizers: list[Part]) -> bool:
    return any(part["type"] == "Precompiled" for part in normalizers)  # works on grapheme clusters: single in ASCII


def _one_space(part: Part) -> bool:
    return part["type"] == "Replace" and part["pattern"] == {"Regex": " {2,}"}  # nothing to do between single spaces


def _words(normalizers: list[Part], cutters: list[Part]) -> bool:
    local = (*CANONICAL, *COMPATIBLE, "BertNormalizer", "StripAccents", "Precompiled")
    if not all(part["type"] in local or _one_space(part) for part in normalizers):
        return False
    dropped = False
    for part in cutters:
        kind = part["type"]
        if kind == "Metaspace":
            if not dropped or part.get("prepend_scheme") not in ("always", "never"):
                return False
        elif kind == "Punctuation":
            if part.get("behavior") != "Isolated":
                return False
        elif kind not in (*DROPS_SPACE, "Digits"):
            return False
        dropped = dropped or kind in DROPS_SPACE
    return dropped


def _metaspace(normalizers: list[Part], cutters: list[Part]) -> bool:
    local = (*CANONICAL, *COMPATIBLE, "Precompiled")
    fits = all(part["type"] in local or _one_space(part) for part in normalizers)
    return fits and len(cutters) == 1 and cutters[0]["type"] == "Metaspace" and bool(cutters[0].get("split"))


def _byte_level(normalizers: list[Part], cutters: list[Part]) -> bool:
    if not cutters or not all(part["type"] in (*CANONICAL, *COMPATIBLE) for part in normalizers):
        return False
    *before, last = cutters
    if last["type"] != "ByteLevel" or len(before) > 1:
        return False
    if not before:
        return bool(last["use_regex"])
    first = before[0]
    if first["type"] == "Digits":
        return bool(last["use_regex"]) and not last["add_prefix_space"]
    known = first["type"] == "Split" and first["pattern"].get("Regex") in PATTERNS
    plain = known and first["behavior"] == "Isolated" and not first["invert"]
    return plain and not last["use_regex"] and not last["add_prefix_space"]


def _runs(normalizers: list[Part], cutters: list[Part]) -> re.Pattern[str] | None:
    """How a byte-level tokenizer's texts with runs of white space are cut; None: they go through the library."""
    exact = all(part["type"] in CANONICAL for part in normalizers)
    if not exact or cutters[-1]["add_prefix_space"] or cutters[0]["type"] == "Split":
        return None
    return RUNS_DIGITS if cutters[0]["type"] == "Digits" else RUNS


def _metaspace_runs(normalizers: list[Part]) -> re.Pattern[str] | None:
    return SINGLES if all(part["type"] in CANONICAL for part in normalizers) else None


def _plain(text: str) -> bool:
    """No control character, no white space but space, line end and tab. (str.isprintable allows U+0020 alone.)"""
    return text.isprintable() or text.replace("\n", " ").replace("\t", " ").replace("\r", " ").isprintable()


def _split_words(holds: Callable[[str], bool], *, ascii_only: bool) -> Split:
    def split(text: str) -> list[str] | None:
        if holds(text) or not _plain(text):
            return None
        if ascii_only and not (text.isascii() and text.isprintable()):
            return None
        return text.split()

    return split


def _split_spaces(holds: Callable[[str], bool], runs: re.Pattern[str] | None, *, ascii_only: bool) -> Split:
    digits = runs is RUNS_DIGITS

    def split(text: str) -> list[str] | None:
        if not text or holds(text) or (ascii_only and not text.isascii()):
            return None
        if text.isprintable() and "  " not in text and text[0] != " " and text[-1] != " ":
            return text.replace(" ", "\n ").split("\n")
        if runs is None or not _plain(text) or (digits and not text.isascii()):
            return None  # other scripts have digits that [0-9] does not name
        return runs.findall(text)

    return split
