"""Finite verb groups of English: helpers, not, adverb, verb. Takes tokens with tags and the subject before them;
gives what the group says, whatever words it uses, or none where it is not sure. Called by `clause`."""

from __future__ import annotations

from dataclasses import dataclass

from orchestration.data.augment import verbs
from orchestration.data.augment.noun_phrases import Phrase, Token
from orchestration.data.augment.voice_words import BEFORE_VERB, GERUND_SUBJECTS, MODALS

_BE = frozenset(("BE", "BED", "BEDZ", "BEG", "BEM", "BEN", "BER", "BEZ"))
_HAVE = frozenset(("HV", "HVD", "HVZ"))
_DO = frozenset(("DO", "DOD", "DOZ"))
FINITE = _HAVE | _DO | (_BE - {"BE", "BEG", "BEN"}) | {"MD", "VBD", "VBZ"}


@dataclass(frozen=True)
class Group:
    """A finite verb group but for its subject's number."""

    verb: verbs.Verb
    passive: bool
    modal: str = ""
    perfect: bool = False
    progressive: bool = False
    past: bool = False
    negation: str = ""  # "not", "n't" or none
    adverb: str = ""


def verb_group(tokens: list[Token], subject: Phrase) -> tuple[Group, int] | None:
    """The finite verb group at the subject's end, and where it ends."""
    helpers: list[Token] = []
    at, negation, adverb = subject.end, "", ""
    while at < len(tokens):
        token = tokens[at]
        if token.tag == "NOT" and helpers and not negation:
            negation = "n't" if token.lower.endswith("t") and token.lower != "not" else "not"
        elif token.tag in _BE or token.tag in _HAVE or token.tag in _DO or token.tag == "MD":
            if adverb and not helpers:
                return None
            helpers.append(token)
        elif token.lower in BEFORE_VERB and not adverb:
            adverb = token.text
        else:
            break
        at += 1
    if at >= len(tokens) or (adverb and negation):
        return None
    group = _shape(helpers, tokens[at], subject, negation, adverb)
    return (group, at + 1) if group else None


def _shape(helpers: list[Token], main: Token, subject: Phrase, negation: str, adverb: str) -> Group | None:
    """Which of the eleven shapes it is."""
    if not main.tag.startswith("VB") or (helpers and not _agrees(helpers[0], subject)):
        return None
    if not helpers:
        return _finite(main, subject, adverb)
    first, kinds = helpers[0], "".join(_kind(helper.tag) for helper in helpers).replace("MH", "Mh")
    modal = _modal(first) if kinds[0] == "M" else ""
    if (kinds[0] == "M") != bool(modal) or (kinds[0] == "D" and not negation):
        return None
    verb, passive = _main(kinds, main)
    if verb is None or (kinds == "B" and not passive and subject.head in GERUND_SUBJECTS):
        return None  # the hard part is reading the book
    if first.lower in ("'s", "'d") and kinds[0] in "BH" and main.lower != verb.gerund:
        return None  # he's written: is or has?
    return Group(
        verb,
        passive,
        modal=modal,
        perfect="h" in kinds or kinds[0] == "H",
        progressive="g" in kinds or (kinds == "B" and not passive),
        past=first.tag in ("BED", "BEDZ", "HVD", "DOD"),
        negation=negation,
        adverb=adverb,
    )


def _kind(tag: str) -> str:
    """One letter a helper: the finite ones B H D M; have, be, been and being h b n g."""
    exact = {"HV": "H", "BE": "b", "BEN": "n", "BEG": "g", "MD": "M"}
    return exact.get(tag) or ("B" if tag in _BE else "H" if tag in _HAVE else "D" if tag in _DO else "?")


def _main(kinds: str, main: Token) -> tuple[verbs.Verb | None, bool]:
    """The verb that the helpers let `main` be, and whether it is passive."""
    if kinds in ("D", "M"):
        return (verbs.VERBS.get(main.lower) if main.tag == "VB" else None), False
    if kinds in ("H", "Mh"):
        return verbs.BY_PARTICIPLE.get(main.lower), False
    if kinds == "B" and main.lower in verbs.BY_GERUND:
        return verbs.BY_GERUND[main.lower], False
    if kinds in ("B", "Hn", "Mhn", "Bg", "Mb") and main.tag in ("VBN", "VBD"):
        return verbs.BY_PARTICIPLE.get(main.lower), True
    return None, False


def _finite(main: Token, subject: Phrase, adverb: str) -> Group | None:
    word = main.lower
    present_plural = subject.plural or subject.pronoun == "i"
    if main.tag == "VBZ" and word in verbs.BY_THIRD and not present_plural and subject.sure:
        return Group(verbs.BY_THIRD[word], False, adverb=adverb)
    verb = verbs.BY_PAST.get(word)
    if verb and verb.base == verb.past:  # put, cut: past only where the present would end in s
        verb = None if present_plural or not subject.sure else verb
        return Group(verb, False, past=True, adverb=adverb) if verb else None
    if verb and (main.tag == "VBD" or (main.tag == "VBN" and subject.pronoun)):  # not: a couple named Smith
        return Group(verb, False, past=True, adverb=adverb)
    if main.tag == "VB" and word in verbs.VERBS and present_plural and subject.sure:
        return Group(verbs.VERBS[word], False, adverb=adverb)
    return None


def _agrees(helper: Token, subject: Phrase) -> bool:
    """Does the first auxiliary agree with the subject? Where it does not, one of them was read wrongly."""
    singular = helper.tag in ("BEZ", "HVZ", "DOZ") or (helper.tag == "BEDZ" and subject.pronoun != "i")
    plural = helper.tag in ("BER", "BED") or (helper.tag in ("HV", "DO") and subject.pronoun != "i")
    if helper.tag == "BEM":
        return subject.pronoun == "i"
    if subject.pronoun == "i":
        return helper.tag not in ("BEZ", "HVZ", "DOZ", "BER", "BED")
    return not (singular if subject.plural else plural)


def _modal(helper: Token) -> str:
    word = helper.lower.replace("’", "'")
    word = {"'ll": "will", "'d": "would", "ca": "can", "wo": "will", "sha": "shall"}.get(word, word)
    return word if word in MODALS else ""
