"""A table of safe Chinese synonyms, made of the extended Cilin (Tongyici Cilin, Harbin Institute of Technology): a line holds a code such
as `Aa01A01=` and words; `=` marks synonyms, `#` related words, `@` a word alone. Called by `thesaurus`.

Safe means: a word is replaced only where it stands in one line of the whole thesaurus, so that it has one meaning, and only by words
of which that is true as well, that are about as long, and not much rarer by the segmenter's counts (Cilin lists many that nobody
writes). Words of grammar and courtesy (codes K, L) and words that negate are left out."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from orchestration.data.augment.words import negates
from orchestration.errors import UserError

MIN_COUNT = 30  # uses in the text behind the segmenter's dictionary, for a synonym
MIN_COUNT_SHARE = 0.1  # of the replaced word's uses
MIN_CHARS = 2  # single characters have many meanings and are parts of other words
CLASS_CODE = 4  # characters of a code that name a class: Bh07 fruits, Ga01 joy

_LINE = re.compile(r"([A-L][a-z]\d\d)[A-Z]\d\d([=#@]) (.+)")


def build(lines: list[str], source: Path) -> dict[str, Any]:
    """Raises UserError where a line has another form."""
    groups = [_group(line, number, source) for number, line in enumerate(lines, start=1) if line.strip()]
    lines_of = Counter(word for _, _, words in groups for word in set(words))
    count = _counts()
    table: dict[str, list[Any]] = {}
    classes: dict[str, list[str]] = defaultdict(list)
    for code, kind, words in groups:
        if code[0] in "KL":
            continue
        safe = sorted({word for word in words if lines_of[word] == 1 and len(word) >= MIN_CHARS and not negates(word)})
        common = [word for word in safe if count(word) >= MIN_COUNT]
        classes[code] += common
        for word in safe if kind == "=" else []:
            fits = [other for other in common if other != word and abs(len(other) - len(word)) < 2]
            fits = [other for other in fits if count(other) >= MIN_COUNT_SHARE * count(word)]
            if fits:
                table[word] = ["", fits]
    return {
        "words": dict(sorted(table.items())),
        "classes": {code: sorted(found) for code, found in sorted(classes.items()) if len(found) > 1},
    }


def _group(line: str, number: int, source: Path) -> tuple[str, str, list[str]]:
    found = _LINE.fullmatch(line.strip())
    if found is None:
        raise UserError(
            f"data.augment: thesaurus {source}, line {number}: {line[:40]!r} is no line of Cilin (`Aa01A01= word word`); a table"
            " of your own is a .tsv file with a set of synonyms a line"
        )
    return found[1], found[2], found[3].split()


def _counts() -> Any:
    """word -> its count in the segmenter's dictionary, 0 for a word it does not know."""
    import rjieba

    return lambda word: rjieba.suggest_freq(word) if rjieba.has_word(word) else 0
