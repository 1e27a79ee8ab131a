"""Active to passive and back (English). Takes a text and a key; gives the text with some sentences turned. Called by
the augmentation in workers. Knows nothing of rows.

A sentence is turned only where all of it parses as a simple clause (`clause`) and no rule of meaning stands against
it; a clause made passive must also parse back to what it was. Other sentences stay byte for byte."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from orchestration.data import rng
from orchestration.data.augment import verbs
from orchestration.data.augment.clause import Clause, parse
from orchestration.data.augment.noun_phrases import PRONOUNS, Phrase, Token
from orchestration.data.augment.tagger import ABBREVIATIONS, TOKEN, Tagger
from orchestration.data.augment.verb_groups import Group
from orchestration.data.config import VoiceConfig

_END = re.compile(r"[.!?]+[\"'”’)]*(?=\s|$)|\n+")
_PERSON = {"i": 1, "we": 1, "you": 2, "it": "it"}
_NO_END = re.compile(rf"(?:\b(?:{ABBREVIATIONS}|No)|\b[A-Z]|\.[A-Za-z])$")
_NOT_SIMPLE = re.compile(r"[?;:\"“”()\[\]#@/*_…]|--|\.\.|``|''|\b(?:rather than|as well as|neither|nor|there)\b")
_WORD = re.compile(r"[a-z]+")
_FORMS = (
    frozenset(verbs.VERBS) | set(verbs.BY_THIRD) | set(verbs.BY_PAST) | set(verbs.BY_PARTICIPLE) | set(verbs.BY_GERUND)
)
Op = Callable[[str, int], str]  # text, key -> text
_CANDIDATE_CHARS = 240  # longer sentences are not simple clauses
_OWNERS = {
    "my": "i", "your": "you", "his": "he", "her": "she", "its": "it", "our": "we", "their": "they",
}  # fmt: skip


def build(config: VoiceConfig, tagger_path: Path) -> Op:
    """(text, 64-bit key) -> text, each sentence that can be turned being turned with probability `config.rate`."""
    tagger = _tagger(str(tagger_path))

    def op(text: str, key: int) -> str:
        parts: list[str] = []
        done = 0
        for number, (start, end) in enumerate(sentences(text)):
            if rng.share(rng.mix(key, number)) < config.rate:
                turned = turn(text[start:end], tagger, config.to)
                if turned is not None:
                    parts += [text[done:start], turned]
                    done = end
        return "".join([*parts, text[done:]]) if parts else text

    return op


@lru_cache(maxsize=4)  # once a process
def _tagger(path: str) -> Tagger:
    return Tagger.load(path)


def sentences(text: str) -> Iterator[tuple[int, int]]:
    """(start, end) of each sentence, without the white space around it."""
    start = 0
    for match in [*_END.finditer(text), None]:
        end = match.end() if match else len(text)
        if match and match.group() == "." and _NO_END.search(text, max(0, match.start() - 8), match.start()):
            continue
        piece = text[start:end]
        if piece.strip():
            yield start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())
        start = end


def turn(sentence: str, tagger: Tagger, to: str = "either") -> str | None:
    """The sentence in the other voice; None where it is not sure or not wanted."""
    read = _read(sentence, tagger)
    if read is None:
        return None
    tokens, clause = read
    if to == ("active" if not clause.group.passive else "passive") or not _keeps_meaning(tokens, clause):
        return None
    turned = _render(sentence, tokens, clause, tagger)
    if turned is None or (not clause.group.passive and not _comes_back(sentence, tokens, clause, turned, tagger)):
        return None
    return turned


def _read(sentence: str, tagger: Tagger, *, attached: bool = False) -> tuple[list[Token], Clause] | None:
    if len(sentence) > _CANDIDATE_CHARS or sentence.isupper():
        return None
    if _NOT_SIMPLE.search(sentence) or not any(word in _FORMS for word in _WORD.findall(sentence.lower())):
        return None  # nine sentences in ten, before the tagger sees them
    found = list(TOKEN.finditer(sentence))
    marks = 1 if found and found[-1].group() in (".", "!") else 0
    if not 3 <= len(found) - marks <= 40:
        return None
    tags = tagger.tag([match.group() for match in found])
    tokens = [
        Token(match.group(), match.group().lower().replace("’", "'"), tag, match.start(), match.end())
        for match, tag in zip(found, tags, strict=True)
    ]
    clause = parse(tokens[: len(tokens) - marks], attached=attached)
    return (tokens, clause) if clause else None


def _keeps_meaning(tokens: list[Token], clause: Clause) -> bool:
    """Rules of scope and reference."""
    subject, other, group = clause.subject, clause.other, clause.group
    if subject.negative or other.negative:
        return False
    if not other.sure and _number_shows(group, other):
        return False
    fixed = [phrase.definite or bool(phrase.pronoun) for phrase in (subject, other)]
    if (group.negation or group.adverb == "never") and not all(fixed):
        return False  # he did not read many books
    if (subject.quantified and not fixed[1]) or (other.quantified and not fixed[0]):
        return False  # every critic praised a film
    if subject.pronoun and _PERSON.get(subject.pronoun) == _PERSON.get(other.pronoun, other.pronoun):
        return False  # I see us
    if subject.pronoun and group.passive:  # he was killed by his wife, his wife killed him
        return not _owned(subject, other)
    return not (_owned(other, subject) or (_owned(subject, other) and not other.pronoun))


def _number_shows(group: Group, phrase: Phrase) -> bool:
    """Would the turned verb group be another for one than for many?"""
    one, many = (
        _verb_words(group, replace(phrase, plural=plural), passive=not group.passive) for plural in (False, True)
    )
    return one != many


def _owned(phrase: Phrase, owner: Phrase) -> bool:
    """May a possessive in the phrase mean the owner? He lost his wallet."""
    persons = {_OWNERS[word] for word in phrase.owners}
    if owner.pronoun:
        return owner.pronoun in persons
    return bool(persons & ({"they"} if owner.plural else {"he", "she", "it", "they"}))


def _comes_back(sentence: str, tokens: list[Token], clause: Clause, turned: str, tagger: Tagger) -> bool:
    subject = tokens[clause.subject.start : clause.subject.end]
    read = _read(turned, tagger, attached=any(token.tag == "IN" for token in subject))
    if read is None:
        return False
    back = _render(turned, *read, tagger)
    first, _, rest = _expanded(sentence, tokens, clause).partition(" ")
    again, _, end = (back or "").partition(" ")
    return (first.lower(), rest) == (again.lower(), end)


def _expanded(sentence: str, tokens: list[Token], clause: Clause) -> str:
    """The clause with its verb group as `_render` writes it ('ll as will), in its own voice."""
    words = _verb_words(clause.group, clause.subject, passive=clause.group.passive)
    subject = _span(sentence, tokens, clause.subject.start, clause.subject.end)
    head = sentence[: tokens[clause.subject.start].start]
    rest = sentence[tokens[clause.other.start].start :]
    return f"{head}{subject} {words} {rest}"


# ------------------------------------------------------------------------------------------------ rendering


def _render(sentence: str, tokens: list[Token], clause: Clause, tagger: Tagger) -> str | None:
    """The clause in the other voice."""
    group = clause.group
    initial = clause.subject.start == 0
    old = _low(sentence, tokens, clause.subject, tagger, initial, nominative=group.passive is False)
    new = _text(sentence, tokens, clause.other, nominative=True)
    if old is None:
        return None
    if initial and sentence[0].isupper():
        new = new[0].upper() + new[1:]
    words = _verb_words(group, clause.other, passive=not group.passive)
    middle = _span(sentence, tokens, *clause.middle)
    tail = _span(sentence, tokens, *clause.tail)
    parts = [new, words, old, middle, tail] if group.passive else [new, words, "by", old, tail]
    last = max(clause.tail[1], clause.other.end) - 1
    return sentence[: tokens[clause.subject.start].start] + " ".join(filter(None, parts)) + sentence[tokens[last].end :]


def _span(sentence: str, tokens: list[Token], start: int, end: int) -> str:
    return sentence[tokens[start].start : tokens[end - 1].end] if end > start else ""


def _text(sentence: str, tokens: list[Token], phrase: Phrase, *, nominative: bool) -> str:
    if not phrase.pronoun:
        return _span(sentence, tokens, phrase.start, phrase.end)
    if phrase.pronoun == "i":
        return "I" if nominative else "me"
    return phrase.pronoun if nominative else PRONOUNS[phrase.pronoun]


def _low(
    sentence: str, tokens: list[Token], phrase: Phrase, tagger: Tagger, initial: bool, *, nominative: bool
) -> str | None:
    """The old subject where it goes, its capital taken away unless it is a name's; None where that is not sure."""
    text = _text(sentence, tokens, phrase, nominative=False)
    first = tokens[phrase.start]
    if phrase.pronoun or not initial or not first.text[0].isupper():
        return text
    second = tokens[phrase.start + 1] if phrase.end > phrase.start + 1 else None
    if first.tag in ("AT", "DT", "PP$", "CD", "AP", "AB"):
        return text[0].lower() + text[1:]
    if first.tag in ("NP", "NPS") or (second and second.text[0].isupper()) or first.text.isupper():
        return text if tagger.common(first.text) is not True or (second and second.text[0].isupper()) else None
    common = tagger.common(first.text)
    titled = second and second.lower == "of" and tokens[phrase.start + 2].text[0].isupper()
    if titled and tagger.common(tokens[phrase.start + 2].text) is not False:
        return None  # Chamber of Secrets
    return None if common is None else text[0].lower() + text[1:] if common else text


_BE = {True: ("was", "were"), False: ("is", "are")}


def _verb_words(group: Group, subject: Phrase, *, passive: bool) -> str:
    """The verb group for a subject: helpers, not, adverb and the verb's form."""
    verb, many = group.verb, subject.plural
    be = "am" if subject.pronoun == "i" and not group.past else _BE[group.past][many]
    have = "had" if group.past else "have" if many or subject.pronoun == "i" else "has"
    form = verb.participle if passive or group.perfect else verb.gerund if group.progressive else verb.base
    inner = ["been"] if passive and group.perfect else ["being"] if passive and group.progressive else []
    if group.modal:
        first, inner = group.modal, ["have", *inner] if group.perfect else ["be"] if passive else []
    elif group.perfect:
        first = have
    elif group.progressive or passive:
        first = be
    elif group.negation:
        first = "did" if group.past else "do" if many or subject.pronoun == "i" else "does"
    else:
        first = ""
        form = verb.past if group.past else verb.base if many or subject.pronoun == "i" else verb.third
    if group.negation:
        first = _negated(first, group.negation)
    return " ".join(filter(None, [first, group.adverb, *inner, form]))


def _negated(helper: str, negation: str) -> str:
    if negation == "not" or helper in ("am", "may", "might", "shall"):
        return "cannot" if helper == "can" else f"{helper} not"
    return {"will": "won't", "can": "can't"}.get(helper, helper + "n't")
