"""Sets for tasks that no package has a set for, derived from what packages hold: questions on definitions, pairs of texts, spellings and
sounds. Takes downloaded archives; fills a folder. Called by the catalogue's fetch through its list; each function is the conversion of
the entry it is named after. Choices are functions of the rows' own words, so that a conversion gives the same bytes everywhere."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from orchestration.data.catalog.unpack import TEXT_GROUP_ROWS, members, only, write_rows

FACTS = 4  # definitions side by side in a context: where an answer stands says little of what it is
ABSENT = 8  # of so many questions one has no answer in its context
TERM_WORDS, LEAST_WORDS, MOST_WORDS = 3, 4, 16


class Noun(NamedTuple):
    """`kind`: offset of the set of synonyms that it is a kind of."""

    offset: str
    term: str
    definition: str
    kind: str | None


def wordnet_questions(archives: list[Path], folder: Path) -> None:
    """Definitions of nouns, four neighbours a context -> question, context, answer, start, group. Two questions a context: what a word is,
    and which word is it that ...; one of eight asks for a word that the context does not define (answer is empty, start 0)."""
    nouns = [noun for noun in _nouns(archives[0]) if _plain(noun)]
    rows = (row for at in range(0, len(nouns) - 2 * FACTS, FACTS) for row in _questions(nouns, at))
    columns = {"question": "string", "context": "string", "answer": "string", "start": "int32", "group": "string"}
    write_rows(folder / "wordnet-questions.parquet", columns, rows, TEXT_GROUP_ROWS)


def _questions(nouns: list[Noun], at: int) -> Iterator[tuple[str, str, str, int, str]]:
    facts = nouns[at : at + FACTS]
    context = " ".join(f"{noun.term[0].upper()}{noun.term[1:]} is {noun.definition}." for noun in facts)
    for side in range(2):
        draw = _draw("question", facts[0].offset, side)
        number, absent = draw % FACTS, draw // FACTS % ABSENT == 0
        asked = nouns[at + FACTS + number] if absent else facts[number]
        backwards = draw // (FACTS * ABSENT) % 2
        question = f"Which word is it: {asked.definition}?" if backwards else f"What is {asked.term}?"
        if absent:
            yield question, context, "", 0, facts[0].offset
            continue
        start = sum(len(noun.term) + len(noun.definition) + 6 for noun in facts[:number])  # " is ", full stop, space
        told = context[start : start + len(asked.term)] if backwards else asked.definition
        yield question, context, told, start if backwards else start + len(asked.term) + 4, facts[0].offset


def wordnet_kinds(archives: list[Path], folder: Path) -> None:
    """Definitions of nouns beside what they are a kind of -> text, pair, label (yes, no), group. The other half has the kind of another noun,
    so that each kind is as often right as wrong."""
    nouns = list(_nouns(archives[0]))
    terms = {noun.offset: noun.term for noun in nouns}
    known = [noun for noun in nouns if noun.kind in terms and _plain(noun)]
    kinds = [terms[str(noun.kind)] for noun in known]
    order = sorted(range(len(known)), key=lambda i: _draw("other", known[i].offset))
    others = {row: kinds[order[(at + 1) % len(order)]] for at, row in enumerate(order)}
    rows = []
    for i, noun in enumerate(known):
        if others[i] != kinds[i]:
            rows.append((f"{noun.definition}.", f"a kind of {kinds[i]}", "yes", noun.offset))
            rows.append((f"{noun.definition}.", f"a kind of {others[i]}", "no", noun.offset))
    columns = dict.fromkeys(("text", "pair", "label", "group"), "string")
    write_rows(folder / "wordnet-kinds.parquet", columns, rows, TEXT_GROUP_ROWS)


def _nouns(archive: Path) -> Iterator[Noun]:
    """By offset, so that neighbours are of one field of meaning. The definition is what stands before the examples."""
    where = re.compile(r".*/text/en/wordnet/dict/data\.noun[12]")
    files = sorted(members(archive, lambda name: where.fullmatch(name) is not None))
    for _, content in files:
        for line in content.decode("utf-8").split("\n"):
            if line[:8].isdigit():
                head, _, gloss = line.partition(" | ")
                words = head.split(" ")
                at = 5 + 2 * int(
                    words[3], 16
                )  # the first pointer: behind the count of words, the words with ids, its own count
                up = next((words[i + 1] for i in range(at, len(words) - 3, 4) if words[i] == "@"), None)
                yield Noun(words[0], words[4].replace("_", " "), gloss.partition(";")[0].strip(), up)


def _plain(noun: Noun) -> bool:
    """A word or a few, and a definition of one short sentence."""
    words = noun.definition.split()
    fits = len(noun.term.split()) <= TERM_WORDS and LEAST_WORDS <= len(words) <= MOST_WORDS
    return (
        fits and not re.search(r"[^a-z ,'-]", noun.definition) and re.fullmatch(r"[A-Za-z '-]+", noun.term) is not None
    )


def pronunciations(archives: list[Path], folder: Path) -> None:
    """The CMU Pronouncing Dictionary -> word, letters (divided by spaces), sounds (ARPAbet, without stress). Of several ways to say a word
    the first."""
    rows = [(word, " ".join(word), sounds) for word, sounds in _pronounced(archives[0])]
    columns = dict.fromkeys(("word", "letters", "sounds"), "string")
    write_rows(folder / "pronunciations.parquet", columns, rows, TEXT_GROUP_ROWS)


def pronunciation_tokenizer(archives: list[Path], folder: Path) -> None:
    """A tokenizer of the letters and sounds of `pronunciations`, one entry each: a model over 70 of them learns in minutes what one over the
    30,522 of a language would take hours for."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    entries = _pronounced(archives[0])
    letters = sorted({letter for word, _ in entries for letter in word})
    sounds = sorted({sound for _, told in entries for sound in told.split()})
    special = ["<pad>", "</s>", "<unk>"]
    fast = Tokenizer(models.WordLevel({entry: i for i, entry in enumerate([*special, *letters, *sounds])}, "<unk>"))
    fast.add_special_tokens(special)
    fast.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    fast.save(str(folder / "tokenizer.json"))
    named = {
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(named, indent=1), encoding="utf-8")


def _pronounced(archive: Path) -> list[tuple[str, str]]:
    """Words of plain letters, and their sounds."""
    found = only(archive, "package/index.js").decode("utf-8")
    entries = json.loads(found[found.index("= {") + 2 : found.rindex("}") + 1].replace(",\n}", "\n}"))
    pairs = (
        (word, told.partition(" #")[0]) for word, told in entries.items()
    )  # a few have a remark, "# place, danish"
    return [(word, re.sub(r"\d", "", told)) for word, told in pairs if re.fullmatch("[a-z]+", word)]


def prose_pairs(archives: list[Path], folder: Path) -> None:
    """Chapters of Moby-Dick and addresses of presidents -> text and pair, two sentences that follow each other, each in one row alone;
    document."""
    where = re.compile(r"package/(moby-dick|sotu)/data/([\w.-]+)\.json")
    contents = dict(members(archives[0], lambda name: where.fullmatch(name) is not None))
    rows = []
    for name in sorted(contents):
        told = json.loads(contents[name])
        if isinstance(told, dict) and told.get("text"):
            sentences = _sentences(told["text"])
            document = name.removeprefix("package/").removesuffix(".json").replace("/data", "")
            rows += [(a, b, document) for a, b in zip(sentences[::2], sentences[1::2], strict=False)]
    columns = dict.fromkeys(("text", "pair", "document"), "string")
    write_rows(folder / "prose-pairs.parquet", columns, rows, TEXT_GROUP_ROWS)


def _sentences(text: str) -> list[str]:
    """Of five words at least; shorter ones go to the one before them."""
    found: list[str] = []
    for sentence in re.split(r"(?<=[.!?][\"'\u201d]|.[.!?])\s+(?=[\"'\u201c]?[A-Z])", " ".join(text.split())):
        if found and len(sentence.split()) < 5:
            found[-1] = f"{found[-1]} {sentence}"
        else:
            found.append(sentence)
    return found


def _draw(*parts: object) -> int:
    return int.from_bytes(hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=8).digest(), "big")
