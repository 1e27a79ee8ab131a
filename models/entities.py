"""Entities in tags: stretches of words that tags in BIO (or IOB, IOBES) mark. Takes the tags of one row; gives stretches, and counts that
add up over rows. As conlleval and seqeval read them: a stretch that begins without a B counts, and ends where the type changes. Called by
the task `tagging`, and by the baselines of its evaluation, where the tags are of this kind."""

from __future__ import annotations

from collections.abc import Sequence

OUTSIDE = "O"
MARKS = ("B", "I", "E", "S")
Entity = tuple[str, int, int]  # type, first word, last word


def types(tags: Sequence[str]) -> list[str]:
    """The types of entity that a list of tags names, in order: `['PER', 'LOC']` of O, B-PER, I-PER, B-LOC, I-LOC. Empty for tags of another
    kind, parts of speech for one."""
    marked = [tag for tag in tags if tag != OUTSIDE]
    known = len(marked) < len(tags) and all(tag[:2] in {f"{mark}-" for mark in MARKS} and tag[2:] for tag in marked)
    return list(dict.fromkeys(tag[2:] for tag in marked)) if known and marked else []


def entities(tags: Sequence[str]) -> list[Entity]:
    """The stretches of one row, left to right."""
    found: list[Entity] = []
    start, before = 0, OUTSIDE
    for at, tag in enumerate([*tags, OUTSIDE]):
        if before != OUTSIDE and _parted(before, tag):
            found.append((before[2:], start, at - 1))
        if tag != OUTSIDE and (before == OUTSIDE or _parted(before, tag)):
            start = at
        before = tag
    return found


def _parted(before: str, tag: str) -> bool:
    """Whether two neighbours belong to different stretches, or none."""
    return tag == OUTSIDE or before[0] in "ES" or tag[0] in "BS" or before[2:] != tag[2:]


def counts(found: Sequence[str], wanted: Sequence[str], kinds: Sequence[str]) -> list[int]:
    """Of one row, for each type: entities that are right in type and both ends, those found, those there are."""
    told, meant = entities(found), entities(wanted)
    right = set(told) & set(meant)
    return [sum(one[0] == kind for one in part) for kind in kinds for part in (right, told, meant)]


def scores(total: Sequence[float], kinds: Sequence[str]) -> dict[str, float]:
    """Of added-up counts: precision, recall and F1 of all entities together (micro), and the F1 of each type where there are several."""
    by_type = [total[at : at + 3] for at in range(0, len(total), 3)]
    right, told, meant = (sum(part[i] for part in by_type) for i in range(3))
    each = {f"entity_{kind}_f1": _f1(*part) for kind, part in zip(kinds, by_type, strict=True)}
    return {
        "entity_f1": _f1(right, told, meant),
        "entity_precision": right / told if told else 0.0,
        "entity_recall": right / meant if meant else 0.0,
        **(each if len(kinds) > 1 else {}),
    }


def _f1(right: float, told: float, meant: float) -> float:
    return 2 * right / (told + meant) if told + meant else 0.0
