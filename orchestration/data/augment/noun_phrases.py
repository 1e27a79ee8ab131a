"""Noun phrases of English. Takes tokens with tags; gives the phrase that starts at one, or none where it is not sure.
Called by `clause` and `verb_groups`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from orchestration.data.augment.voice_words import (
    ATTACHED,
    INTERJECTIONS,
    NEGATIVE,
    PERSONS,
    PLURAL_MODIFIERS,
    PLURALS,
    PREPOSITIONS,
    QUANTIFIED,
    TIMES,
    UNSURE_HEADS,
)

PRONOUNS = {"i": "me", "you": "you", "he": "him", "she": "her", "it": "it", "we": "us", "they": "them"}
ACCUSATIVE = {accusative: nominative for nominative, accusative in PRONOUNS.items()}
_NOUNS = frozenset(("NN", "NNS", "NP", "NPS"))


class Token(NamedTuple):
    text: str
    lower: str
    tag: str
    start: int  # characters in the text
    end: int


@dataclass(frozen=True)
class Phrase:
    """A noun phrase: tokens start to end."""

    start: int
    end: int
    plural: bool
    pronoun: str = ""  # nominative, lower case
    name: bool = False
    definite: bool = True
    quantified: bool = False
    negative: bool = False
    head: str = ""
    bare: bool = False  # no determiner
    owners: frozenset[str] = frozenset()  # his, their ...
    sure: bool = True  # is its number?


def noun_phrase(tokens: list[Token], at: int, *, attached: bool, accusative: bool = False) -> Phrase | None:
    """The phrase that starts at `at`. attached: prepositional phrases after it belong to it; else only those with
    "of"."""
    first = _simple(tokens, at, accusative)
    if first is None:
        return None
    first = _with_attached(tokens, first, attached)
    if first is None or not is_word(tokens, first.end, "and"):
        return first
    second = _simple(tokens, first.end + 1, accusative)
    if second is None or second.pronoun or first.pronoun:
        return first
    if first.end > first.start and any(token.tag == "IN" for token in tokens[first.start : first.end]):
        return None  # a balance of light and shade: what is joined to what?
    if (is_word(tokens, first.start, "a", "an") and second.bare) or tokens[second.start].tag == "VBN":
        return None  # a Gilbert and Sullivan opera; made progress and achieved success
    second = _with_attached(tokens, second, False)
    if second is None or is_word(tokens, second.end, "and"):
        return None
    return Phrase(
        first.start,
        second.end,
        plural=True,
        name=first.name and second.name,
        definite=first.definite and second.definite,
        quantified=first.quantified or second.quantified,
        negative=first.negative or second.negative,
        head=second.head,
        bare=first.bare,
        owners=first.owners | second.owners,
    )


def is_word(tokens: list[Token], at: int, *words: str) -> bool:
    return at < len(tokens) and tokens[at].lower in words


def tag_at(tokens: list[Token], at: int) -> str:
    return tokens[at].tag if at < len(tokens) else ""


def _with_attached(tokens: list[Token], phrase: Phrase, attached: bool) -> Phrase | None:
    end, owners = phrase.end, phrase.owners
    while end < len(tokens) and tokens[end].tag == "IN" and not phrase.pronoun:
        word = tokens[end].lower
        held = end == phrase.end and phrase.head in ATTACHED.get(word, ())
        if word != "of" and not held and not (attached and word in PREPOSITIONS):
            break
        inner = _simple(tokens, end + 1, True)
        if inner is None or inner.pronoun:
            return None
        end, owners = inner.end, owners | inner.owners
    if end == phrase.end:
        return phrase
    return replace(phrase, end=end, owners=owners, bare=False)


def _simple(tokens: list[Token], at: int, accusative: bool) -> Phrase | None:
    """Pronoun, or determiner, adjectives and nouns."""
    if at >= len(tokens):
        return None
    word = tokens[at].lower
    noun_next = tag_at(tokens, at + 1) in ("NN", "NNS", "JJ", "AP", "CD", "OD", "VBN", "NP", "NPS")
    if word in (ACCUSATIVE if accusative else PRONOUNS) and not (word == "her" and noun_next):
        nominative = ACCUSATIVE[word] if accusative else word
        return Phrase(at, at + 1, plural=nominative in ("we", "they", "you"), pronoun=nominative)
    if word in PERSONS:
        every = word.startswith(("every", "any"))
        return Phrase(at, at + 1, plural=False, definite=False, quantified=every, head=word)
    return _nominal(tokens, at)


def _nominal(tokens: list[Token], start: int) -> Phrase | None:
    at = start
    determiner = ""
    owners: set[str] = set()
    if is_word(tokens, at, "all", "both", "half"):
        at += 1
    if tag_at(tokens, at) in ("AT", "DT", "PP$") or is_word(tokens, at, "her"):
        determiner = tokens[at].lower
        owners |= {determiner} if tokens[at].tag == "PP$" or determiner == "her" else set()
        at += 1
    if not determiner and tag_at(tokens, at) == "VBG":
        return None  # measuring the depth
    at = _nouns(tokens, at)
    possessive = False
    while tag_at(tokens, at) == "POS" and at > start:
        possessive = True
        at = _nouns(tokens, at + 1)
    acting = bool(determiner) and at == start + 1 and tag_at(tokens, at) == "VBG"  # the acting
    at += acting
    if at <= start or not (acting or tokens[at - 1].tag in _NOUNS):
        return None
    head = tokens[at - 1]
    words = {token.lower for token in tokens[start:at]}
    plural = head.tag in ("NNS", "NPS") or head.lower in PLURALS
    name = head.tag in ("NP", "NPS")
    many = any(token.tag == "CD" and token.lower not in ("one", "1") for token in tokens[start : at - 1])
    one = determiner in ("a", "an", "this", "that", "every", "each", "another", "either")
    more = determiner in ("these", "those") or bool(words & {"many", "several", "few", "both"}) or many
    if not possessive and ((one and plural) or (more and not plural)):
        return None
    if is_word(tokens, start, "only") or (head.lower.endswith("ing") and tag_at(tokens, at - 2) in ("NN", "NP")):
        return None  # only he; a vulture hovering
    if any(tokens[number].lower in TIMES and tokens[number + 1].tag == "NP" for number in range(start, at - 1)):
        return None  # all evening Ann sang
    odd = any(not token.lower[0].isalnum() for token in tokens[start:at] if token.tag in _NOUNS)
    if odd or words & INTERJECTIONS or not head.lower.replace("-", "").replace(".", "").isalpha():
        return None
    return Phrase(
        start,
        at,
        plural=plural,
        name=name and not determiner,
        definite=name or possessive or determiner in ("the", "this", "that", "these", "those") or bool(owners),
        quantified=bool(words & QUANTIFIED),
        negative=bool(words & NEGATIVE),
        head=head.lower,
        bare=start == at - 1 or (not determiner and not possessive and not many),
        owners=frozenset(owners),
        sure=not (
            head.lower in UNSURE_HEADS or (name and plural) or "s-" in head.lower or "-thirds" in head.lower
        ),  # passers-by
    )


def _nouns(tokens: list[Token], at: int) -> int:
    """Past the adjectives and nouns that start at `at`."""
    while True:
        tag = tag_at(tokens, at)
        if tag in ("NN", "NNS", "NP", "NPS", "JJ", "AP", "CD", "OD"):
            at += 1
            if tag == "NP" and tag_at(tokens, at) in ("CD", "OD", "AP", "QL"):
                return at  # Cleveland three times
            if tag == "NNS" and tokens[at - 1].lower not in PLURAL_MODIFIERS and tag_at(tokens, at) != "POS":
                return at
            follows = ("POS", "NN", "NP") if tag in ("NNS", "NPS") else ("POS", "NN", "NNS", "NP")
            if tag in ("NN", "NNS", "NPS") and tag_at(tokens, at) not in follows:
                return at
        elif _modifies(tokens, at):
            at += 1
        else:
            return at


def _modifies(tokens: list[Token], at: int) -> bool:
    """A participle, an adverb or a mark before an adjective or noun: the stolen car, a very old car, a big, heavy
    car."""
    tag, after = tag_at(tokens, at), tag_at(tokens, at + 1)
    if tag in ("VBN", "VBG"):
        return after in ("NN", "NNS", "JJ")
    if tag in ("QL", "RB"):
        return after in ("JJ", "AP") and (tag == "QL" or tokens[at].lower.endswith("ly"))
    between = is_word(tokens, at, ",", "and", "but") and tag_at(tokens, at - 1) == "JJ" and after == "JJ"
    return between and tag_at(tokens, at + 2) in ("NN", "NNS", "JJ")
