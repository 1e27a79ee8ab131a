"""Parse of a simple English clause, or none. Takes tokens with tags; gives subject, verb, object or agent, and what
stays where it is. Called by `voice`. Knows nothing of rendering.

All of the sentence must fit the pattern: a word that has no place in it (a second verb, a relative pronoun, a
particle, a second object) means no parse. So what parses is sure, and most sentences do not."""

from __future__ import annotations

from dataclasses import dataclass

from orchestration.data.augment import verbs
from orchestration.data.augment.noun_phrases import Phrase, Token, is_word, noun_phrase, tag_at
from orchestration.data.augment.verb_groups import FINITE, Group, verb_group
from orchestration.data.augment.voice_words import (
    ADVERBS,
    BEFORE_CLAUSE,
    DAYS,
    FIXED_OBJECTS,
    FORMAL,
    MEASURES,
    NOT_AGENTS,
    OF_VERBS,
    PREPOSITIONS,
    REPORTING,
    SENSES,
    SUBORDINATE,
    TIMES,
    TO_SOMEBODY,
    TWO_OBJECTS,
)

_SUITED = frozenset(("good", "great", "ideal", "perfect", "fine", "excellent", "bad", "terrible", "wonderful"))


@dataclass(frozen=True)
class Clause:
    subject: Phrase
    group: Group
    other: Phrase  # object of an active clause, agent of a passive one
    middle: tuple[int, int]  # tokens between participle and "by"
    tail: tuple[int, int]  # adverbials after the object or agent
    prefix: int  # tokens before the subject


def parse(tokens: list[Token], *, attached: bool = False) -> Clause | None:
    """Tokens of one sentence without its final mark. attached: what follows a passive's agent is known to belong to
    it."""
    for start in dict.fromkeys((0, _prefix(tokens))):
        clause = _clause(tokens, start, attached)
        if clause:
            return clause
    return None


def _clause(tokens: list[Token], start: int, attached: bool) -> Clause | None:
    subject = noun_phrase(tokens, start, attached=True)
    if subject is None:
        return None
    found = verb_group(tokens, subject)
    if found is None:
        return None
    group, at = found
    middle = (at, at)
    if group.passive:
        at = _adverbials(tokens, at, any_phrase=True, stop="by")
        middle = (middle[0], at)
        if at >= len(tokens) or tokens[at].lower != "by":
            return None
        at += 1
    other = noun_phrase(tokens, at, attached=attached and group.passive, accusative=True)
    if other is None or not _fits(tokens, other, passive=group.passive, base=group.verb.base):
        return None
    pinned = bool(other.pronoun) or (other.name and other.end - other.start <= 3)
    end = _adverbials(tokens, other.end, any_phrase=pinned, giving=group.verb.base in TO_SOMEBODY)
    if end != len(tokens) and not _other_clause(tokens, end):
        return None
    return Clause(subject, group, other, middle, (other.end, end), start)


def _other_clause(tokens: list[Token], at: int) -> bool:
    """Does another clause with a subject of its own begin here, which may stay as it is? He wrote it because they
    paid."""
    comma = is_word(tokens, at, ",")
    at += comma
    if not (is_word(tokens, at, *SUBORDINATE) or (comma and is_word(tokens, at, "and", "but", "so", "yet"))):
        return False
    return _subject_and_verb(tokens, at + 1) and not _second_verb(tokens, at + 1)


def _second_verb(tokens: list[Token], at: int) -> bool:
    """Does the clause lean on the first one's verb phrase? Its subject: they hold it when it falls and prevent
    damage; the verb itself: they saw it before I did."""
    for number in range(at, len(tokens)):
        helper = tokens[number].tag in FINITE - {"VBD", "VBZ"} or tokens[number].tag == "NOT"
        if helper and (number + 1 == len(tokens) or is_word(tokens, number + 1, ",", "so", "too")):
            return True
        if tokens[number].tag == "CC":
            after = number + 2 if tag_at(tokens, number + 1) == "RB" else number + 1
            if tag_at(tokens, after) in FINITE or tag_at(tokens, after) in ("VB", "VBN", "NOT"):
                return True
    return False


def _subordinate_in(tokens: list[Token]) -> bool:
    return any(token.tag in ("CS", "WDT", "WP", "WRB") for token in tokens)


def _subject_and_verb(tokens: list[Token], at: int) -> bool:
    subject = noun_phrase(tokens, at, attached=True)
    if subject is None:
        return False
    end = subject.end + (tag_at(tokens, subject.end) == "RB")
    return tag_at(tokens, end) in FINITE or (tag_at(tokens, end) == "VB" and (subject.plural or subject.pronoun == "i"))


def _fits(tokens: list[Token], other: Phrase, *, passive: bool, base: str) -> bool:
    """May the phrase be an agent, or an object that becomes a subject?"""
    named = other.name or tokens[other.end - 1].tag in ("NP", "NPS")  # the New York Times
    if (other.head in TIMES and not named) or other.head in DAYS or other.negative:
        return False
    if not passive:
        if (
            other.head in FIXED_OBJECTS
            or other.head in MEASURES
            or (base in ("kill", "kick", "bite") and other.pronoun in ("i", "we"))
        ):
            return False
        if base == "make" and any(token.lower in _SUITED for token in tokens[other.start : other.end]):
            return False  # he makes an ideal host
        if base in SENSES and other.end - other.start > 1 and tokens[other.end - 2].tag == "NN" and not other.plural:
            return False  # the wind made the vessel heel
        if base in OF_VERBS and any(token.lower == "of" for token in tokens[other.start : other.end]):
            return False  # they accused the man of theft
        two = tokens[other.start].lower == "her" or (tokens[other.start].tag == "NP" and not other.name)
        if base in TWO_OBJECTS and two and not other.pronoun:
            return False  # it gave her courage, it gave Mary courage
        return base in verbs.TRANSITIVE and not (other.bare and not other.plural and base in FORMAL)
    number = tokens[other.start].tag == "CD" and not tokens[other.start].text.isalpha()
    return not (other.head in NOT_AGENTS or number or (other.bare and not other.plural and not other.name))


# ------------------------------------------------------------------------------------------------ adverbials


def _prefix(tokens: list[Token]) -> int:
    """Tokens before the subject: But; In 1990, ; Unfortunately, ; When they left, ; He said that."""
    if is_word(tokens, 0, *SUBORDINATE) and _subject_and_verb(tokens, 1):
        commas = [at for at, token in enumerate(tokens) if token.lower == ","]
        return commas[0] + 1 if len(commas) == 1 else 0
    for at, token in enumerate(tokens[:-1]):
        if token.lower == "that" and token.tag == "CS" and at and tokens[at - 1].lower in REPORTING:
            return at + 1 if _subject_and_verb(tokens, 0) else 0
        joins = at > 1 and tokens[at - 1].lower == "," and token.lower in ("and", "but", "so")
        if (
            joins
            and not _subordinate_in(tokens[:at])
            and all(_subject_and_verb(tokens, start) for start in (0, at + 1))
        ):
            return at + 1
    at = 1 if is_word(tokens, 0, "but", "and", "so", "yet") and len(tokens) > 1 else 0
    if is_word(tokens, at, "yesterday", "today", "recently", "finally", "eventually", "later", "soon", "then"):
        return at + 2 if is_word(tokens, at + 1, ",") else at + 1
    if is_word(tokens, at, *BEFORE_CLAUSE) and is_word(tokens, at + 1, ","):
        return at + 2
    if tag_at(tokens, at) == "IN" and tokens[at].lower in PREPOSITIONS:
        end = _prepositional(tokens, at)
        if end and is_word(tokens, end, ",") and not any(token.tag == "PP$" for token in tokens[at:end]):
            return end + 1
    return at


def _adverbials(tokens: list[Token], at: int, *, any_phrase: bool, giving: bool = False, stop: str = "") -> int:
    """Past the adverbs and phrases of time that start at `at`. any_phrase: other prepositional phrases too, since
    what they follow cannot hold them (a pronoun, a name, a participle); giving: those with to, into and from (give it
    to him)."""
    while at < len(tokens) and tokens[at].lower != stop:
        end = at + 1 if tokens[at].lower in ADVERBS else _time(tokens, at)
        if not end and tokens[at].tag == "IN":
            fits = any_phrase and (tokens[at].lower in PREPOSITIONS or (tokens[at].lower == "of" and bool(stop)))
            if fits or (giving and tokens[at].lower in ("to", "into", "from")):
                end = _prepositional(tokens, at)
        if not end:
            return at
        at = end
    return at


def _prepositional(tokens: list[Token], at: int) -> int:
    """Where the prepositional phrase at `at` ends; 0 for none."""
    if is_word(tokens, at + 1) or at + 1 >= len(tokens):
        return 0
    if tokens[at + 1].tag == "CD" and tokens[at + 1].text.isdigit() and len(tokens[at + 1].text) == 4:
        return at + 2
    phrase = noun_phrase(tokens, at + 1, attached=False, accusative=True)
    return phrase.end if phrase else 0


def _time(tokens: list[Token], at: int) -> int:
    """Where a phrase of time ends: last night, two years ago, in 1990, on Monday, after the war; 0 for none."""
    if is_word(tokens, at, "last", "next", "this", "every", "each", "that", "one") and is_word(
        tokens, at + 1, *TIMES, *DAYS
    ):
        return at + 2
    for length in (2, 3):
        if is_word(tokens, at + length, "ago", "later", "earlier") and is_word(tokens, at + length - 1, *TIMES):
            return at + length + 1
    if tokens[at].tag != "IN" or tokens[at].lower not in PREPOSITIONS:
        return 0
    end = _prepositional(tokens, at)
    if not end and is_word(tokens, at + 1, *DAYS):
        end = at + 2
    if not end or not (
        tokens[end - 1].lower in TIMES or tokens[end - 1].lower in DAYS or tokens[end - 1].text.isdigit()
    ):
        return 0
    if tokens[end - 1].lower in DAYS and tag_at(tokens, end) == "CD":  # in May 1990
        end += 1
    return end
