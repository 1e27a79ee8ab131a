"""Train a tokenizer on a stream of texts, and say how well one fits. Takes an iterator of texts; writes tokenizer.json,
tokenizer_config.json and special_tokens_map.json, which `Tokenizer` and transformers' AutoTokenizer load alike; gives a Report.
Called by `eagleray data tokenizer`; knows no sources. The same texts in the same order give the same bytes. The trainers of the `tokenizers` library walk hash maps in an order that
differs by process. Byte-level BPE gives the same bytes all the same, WordPiece needs help (`_wordpiece`), and Unigram is learnt by
our own unigram.py."""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from orchestration.data.unigram import learn
from orchestration.errors import UserError

Kind = Literal["bpe", "wordpiece", "unigram"]

# Name in transformers -> token. Ids follow this order, then the caller's own tokens.
SPECIAL: dict[str, dict[str, str]] = {
    "bpe": {name: "<|endoftext|>" for name in ("bos_token", "eos_token", "pad_token", "unk_token")},
    "wordpiece": {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    },
    "unigram": {
        "bos_token": "<s>",
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
        "cls_token": "<s>",
        "sep_token": "</s>",
    },
}
BYTES = 256  # the alphabet of byte-level BPE
LETTERS = 16  # the others' smallest that makes sense
SCORE_DIGITS = 4  # of a Unigram score: logarithms of two kinds of processor differ in their last bits
BATCH = 1000
# A unit of fertility: a word between spaces, or one character of a script that writes none.
_ALONE = r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # kana and Han
# Where no spaces are written a sentence is one word: pieces are learnt from its stretches between marks, in half the time.
LONG = 32  # characters
STRETCH = re.compile(rf"▁?\w{{1,{LONG}}}\W?|\W")
UNIT = re.compile(f"[{_ALONE}]|[^\\s{_ALONE}]+")


@dataclass(frozen=True)
class Report:
    """How a tokenizer fits texts. Special tokens of the frame ([CLS] ...) are not counted."""

    vocabulary: int  # with special tokens
    texts: int
    words: int  # between spaces; a Chinese or Japanese character counts as one
    characters: int
    tokens: int
    fertility: float  # tokens a word
    tokens_per_character: float
    unknown_share: float  # of the tokens
    used_share: float  # of the vocabulary
    longest: list[str]  # tokens with the most characters
    examples: list[list[str]]  # the first texts, cut into tokens


def train(
    texts: Iterable[str], *, kind: Kind, size: int, lowercase: bool = False, special: Sequence[str] = (), folder: Path
) -> Report:
    """A tokenizer of at most `size` tokens in `folder`, measured on the same texts. `special` are tokens besides the kind's own,
    such as those of fill in the middle. Texts are read once and kept in a temporary file. Raises UserError for no texts, and
    for a size that does not hold the special tokens and the alphabet."""
    tokens = list(dict.fromkeys([*SPECIAL[kind].values(), *special]))
    least = len(tokens) + (BYTES if kind == "bpe" else LETTERS)
    if size < least:
        raise UserError(f"size={size}: a {kind} vocabulary with {len(tokens)} special tokens needs at least {least}")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile("w+", encoding="ascii") as spool:
        if not _write(texts, spool):
            raise UserError("there is no text to train a tokenizer on; check the sources and what cleaning leaves")
        fast = {"bpe": _bpe, "wordpiece": _wordpiece, "unigram": _unigram}[kind](spool, size, lowercase, tokens)
        fast.add_special_tokens(tokens)
        fast.save(str(folder / "tokenizer.json"))
        names = SPECIAL[kind]
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **names}
        for file, values in (("tokenizer_config.json", config), ("special_tokens_map.json", names)):
            (folder / file).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        return report(folder, _read(spool))


def report(folder: Path, texts: Iterable[str]) -> Report:
    """Measures the tokenizer in `folder` on `texts`, read once. Raises UserError where tokenizer.json cannot be used."""
    from orchestration.data.tokenize import Tokenizer

    fast: Any = Tokenizer(folder, 2**30).library
    size = fast.get_vocab_size()
    unknown = _unknown_id(fast)
    counts = np.zeros(size, np.int64)
    rows = words = characters = 0
    examples: list[list[str]] = []
    stream = iter(texts)
    while batch := list(islice(stream, BATCH)):
        found = fast.encode_batch_fast(batch, add_special_tokens=False)
        examples += [[_shown(fast, i) for i in encoding.ids] for encoding in found[: 3 - len(examples)]]
        ids = [np.array(encoding.ids, np.int64) for encoding in found]
        counts += np.bincount(np.concatenate(ids), minlength=size)
        rows += len(batch)
        characters += sum(map(len, batch))
        words += sum(len(UNIT.findall(text)) for text in batch)
    tokens = int(counts.sum())
    longest = sorted((_shown(fast, i) for i in range(size)), key=lambda token: (-len(token), token))
    return Report(
        vocabulary=size,
        texts=rows,
        words=words,
        characters=characters,
        tokens=tokens,
        fertility=tokens / max(1, words),
        tokens_per_character=tokens / max(1, characters),
        unknown_share=float(counts[unknown]) / max(1, tokens) if unknown is not None else 0.0,
        used_share=float((counts > 0).mean()),
        longest=longest[:10],
        examples=examples,
    )


def _write(texts: Iterable[str], spool: IO[str]) -> int:
    count = 0
    for text in texts:
        spool.write(json.dumps(text) + "\n")
        count += 1
    return count


def _read(spool: IO[str]) -> Iterator[str]:
    spool.seek(0)
    for line in spool:
        yield json.loads(line)


def _bpe(spool: IO[str], size: int, lowercase: bool, special: list[str]) -> Any:
    """Byte-level BPE as GPT-2's, digits apart as in Llama and SmolLM2: no character is unknown."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    fast = Tokenizer(models.BPE())
    fast.normalizer = normalizers.Sequence([normalizers.NFC(), *([normalizers.Lowercase()] if lowercase else [])])
    digits, byte_level = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
    fast.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    fast.train_from_iterator(_read(spool), trainer=trainer)
    return fast


def _wordpiece(spool: IO[str], size: int, lowercase: bool, special: list[str]) -> Any:
    """WordPiece with BERT's normaliser and frame. The trainer numbers the letters inside words as its hash map gives the words,
    and breaks ties by number; so these letters are numbered beforehand, by passing them off as special tokens."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    fast = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    fast.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    fast.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    letters, inner = _letters(fast, spool, room=(size - len(special)) // 2)
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        special_tokens=[*special, *inner],
        initial_alphabet=letters,
        limit_alphabet=len(letters),
        show_progress=False,
    )
    fast.train_from_iterator(_read(spool), trainer=trainer)
    trained = Tokenizer(models.WordPiece(json.loads(fast.to_str())["model"]["vocab"], unk_token="[UNK]"))
    trained.normalizer, trained.pre_tokenizer = fast.normalizer, fast.pre_tokenizer
    trained.decoder = decoders.WordPiece()
    trained.post_processor = _frame(processors, trained, "[CLS]", "[SEP]")
    return trained


def _letters(fast: Any, spool: IO[str], room: int) -> tuple[list[str], list[str]]:
    """Letters of the texts and those inside words (with ##), sorted; the rarest letters are left out where `room` tokens do not
    hold both."""
    words = _words(fast, spool)
    inside = {letter for word in words for letter in word[1:]}
    kept: list[str] = []
    for letter in _ranked(words):
        room -= 1 + (letter in inside)
        if room < 0:
            break
        kept.append(letter)
    return sorted(kept), sorted("##" + letter for letter in kept if letter in inside)


def _words(fast: Any, spool: IO[str]) -> Counter[str]:
    """What the pre-tokenizer makes of the texts, counted."""
    words: Counter[str] = Counter()
    for text in _read(spool):
        words.update(word for word, _ in fast.pre_tokenizer.pre_tokenize_str(fast.normalizer.normalize_str(text)))
    return words


def _ranked(words: Counter[str]) -> list[str]:
    """Letters, the most frequent first."""
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for letter in word:
            counts[letter] += count
    return sorted(counts, key=lambda letter: (-counts[letter], letter))


def _unigram(spool: IO[str], size: int, lowercase: bool, special: list[str]) -> Any:
    """SentencePiece's Unigram with NFKC and Metaspace; learnt by unigram.py."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    fast = Tokenizer(models.Unigram())
    spaces = normalizers.Replace(Regex(" {2,}"), " ")
    fast.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), *([normalizers.Lowercase()] if lowercase else []), spaces]
    )
    fast.pre_tokenizer = pre_tokenizers.Metaspace()
    fast.decoder = decoders.Metaspace()
    words = _words(fast, spool)
    room = size - len(special)
    letters = _ranked(words)[: max(1, room * 3 // 4)]  # the rest is for pieces of several letters
    known = set(letters)
    cut: Counter[str] = Counter()
    for word, count in words.items():
        left = "".join(letter for letter in word if letter in known)
        for part in STRETCH.findall(left) if len(left) > LONG else [left]:
            cut[part] += count
    del cut[""]
    pieces = learn(cut, size=room)
    scored = [(piece, round(score, SCORE_DIGITS)) for piece, score in pieces if piece not in special]
    fast.model = models.Unigram([(token, 0.0) for token in special] + scored, unk_id=special.index("<unk>"))
    fast.post_processor = _frame(processors, fast, "<s>", "</s>")
    return fast


def _frame(processors: Any, fast: Any, head: str, tail: str) -> Any:
    ids = [(token, fast.token_to_id(token)) for token in (head, tail)]
    pair = f"{head} $A {tail} $B:1 {tail}:1"
    return processors.TemplateProcessing(single=f"{head} $A {tail}", pair=pair, special_tokens=ids)


def _unknown_id(fast: Any) -> int | None:
    """Unigram names its unknown token by number, the others by text; byte-level BPE has none."""
    model = json.loads(fast.to_str())["model"]
    named = model.get("unk_token")
    return model.get("unk_id") if named is None else fast.token_to_id(named)


def _shown(fast: Any, number: int) -> str:
    """A token as a reader knows it: byte-level ones decoded, where they are whole characters."""
    from tokenizers import decoders

    token: str = fast.id_to_token(number) or ""
    return fast.decode([number], skip_special_tokens=False) if isinstance(fast.decoder, decoders.ByteLevel) else token
