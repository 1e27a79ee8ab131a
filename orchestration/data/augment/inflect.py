"""Regular English word forms. Takes words; gives the base forms that an ending may hide, and a base form with an ending put
on. Called by `synonyms` and `augment`. Irregular words are listed so that they are left alone: a wrong form is worse than
no replacement."""

from __future__ import annotations

# Words of grammar, and words that turn a sentence round: replacing them breaks it or changes its label.
_GRAMMAR = """about above after again against ago all almost alone along already also although always among and another any
anyone anything anyway are around away back because been before being below best better between both but can cannot could
did does doing done down during each either else enough even ever every everyone everything except few first for former from
get gets getting got had hardly has have having her here hers herself him himself his how however instead into its itself
just last later least less let like little lot lots many maybe may might mine more most much must near nearly neither never
nobody none nor not nothing now off often once one only onto other others otherwise our ours out over own part per perhaps
quite rather really same second several shall she should since some someone something sometimes somewhat soon still such
than that the their theirs them themselves then there these they this those though through thus till too toward two under
unless until upon used using very was way well were what whatever when where whether which while who whole whom whose why
will with within without would yet you your yours"""

# Irregular forms, which may look like other words (said, felt, left, men).
_FORMS = """ate awoke became become been began begun bent bitten bled blew blown bore born bought bound bred broke broken
brought built burnt came caught children chose chosen clung crept dealt drank drawn dreamt drew driven drove drunk dug eaten
fallen fed feet fell felt flew flown forgave forgot forgotten fought found froze frozen gave geese given gone grew grown heard
held hid hidden hung kept knew known laid lain lay leapt learnt led left lent lit lost made meant men met mice paid people
ran rang risen rose rung said sang sank sat saw seen sent shaken shone shook shot shown slept slid smelt sold sought spat sped
spelt spent spoke spoken spoilt sprang spun stole stolen stood strode struck stuck stung sung sunk swam swept swore sworn swung
taken taught teeth thought threw thrown told took tore torn understood went wept woke woken women won wore worn wound wove
woven written wrote"""

KEPT = frozenset(f"{_GRAMMAR} {_FORMS}".split())

# Base forms whose past is irregular, and nouns whose plural is.
_PAST = """arise awake be bear beat become befall begin bend bet bid bind bite bleed blow break breed bring broadcast build burn
    burst buy cast catch choose cling come cost creep cut deal dig do draw dream drink drive eat fall feed feel fight find
    flee fling fly forbid forecast foresee forget forgive forgo freeze get give go grind grow hang have hear hide hit hold
    hurt keep kneel know lay lead lean leap learn leave lend let lie light lose make mean meet mistake overcome overtake pay
    put quit read rend rid ride ring rise run say see seek sell send set shake shed shine shoot show shrink shut sing sink
    sit sleep slide sling slit smell sow speak speed spell spend spill spin spit split spoil spread spring stand steal stick
    sting stink strike string strive swear sweep swell swim swing take teach tear tell think throw thrust tread understand
    undergo undertake upset wake wear weave weep wet win wind withdraw withhold withstand wring write"""
_PLURAL = """calf child deer elf fish foot goose half knife leaf life loaf louse mouse ox people person police self series sheep
    shelf species thief tooth wife wolf"""
IRREGULAR_PAST = frozenset(_PAST.split())
_IRREGULAR_PLURAL = frozenset(_PLURAL.split())
_VOWELS = "aeiou"

# Verbs of several syllables whose last one is stressed, so that its consonant doubles: occur, occurring.
_STRESSED_LAST = frozenset(
    [
        "abet",
        "acquit",
        "admit",
        "allot",
        "commit",
        "compel",
        "concur",
        "confer",
        "control",
        "defer",
        "deter",
        "equip",
        "excel",
        "expel",
        "forbid",
        "forget",
        "infer",
        "kidnap",
        "occur",
        "omit",
        "patrol",
        "permit",
        "prefer",
        "propel",
        "rebut",
        "recur",
        "refer",
        "regret",
        "repel",
        "submit",
        "transfer",
        "transmit",
        "upset",
        "beset",
        "worship",
    ]
)


def endings(word: str) -> list[tuple[str, str]]:
    """Base forms that `word` may be a regular form of, with the ending: s, ed or ing. Likeliest first."""
    found: list[tuple[str, str]] = []
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        if word.endswith("ies") and len(word) > 4:
            found.append((word[:-3] + "y", "s"))
        if word.endswith("es"):
            found.append((word[:-2], "s"))
        found.append((word[:-1], "s"))
    for ending in ("ed", "ing"):
        stem = word.removesuffix(ending)
        if stem == word or len(stem) < 2:
            continue
        if ending == "ing" and stem.endswith("y"):
            found.append((stem[:-1] + "ie", ending))
        if ending == "ed" and stem.endswith("i"):
            found.append((stem[:-1] + "y", ending))
        if len(stem) > 3 and stem[-1] == stem[-2] and stem[-1] not in "aeious":
            found.append((stem[:-1], ending))
        found += [(stem + "e", ending), (stem, ending)]
    return [(base, ending) for base, ending in found if inflect(base, ending) == word]


def inflect(base: str, ending: str) -> str | None:
    """`base` with s, ed or ing put on: inflect('stop', 'ing') is 'stopping'. None where the form is or may be irregular."""
    if ending == "s":
        return _with_s(base)
    if ending == "ed" and base in IRREGULAR_PAST:
        return None
    if base.endswith("e") and ending == "ed":
        return base + "d"
    if base.endswith("ie"):
        return base[:-2] + "ying"
    if base.endswith("e") and not base.endswith(("ee", "oe", "ye")):
        return base[:-1] + ending
    if base.endswith("y") and ending == "ed" and len(base) > 1 and base[-2] not in _VOWELS:
        return base[:-1] + "ied"
    doubled = _doubles(base)
    if doubled is None:
        return None
    return base + base[-1] + ending if doubled else base + ending


def _with_s(base: str) -> str | None:
    if base in _IRREGULAR_PLURAL or base.endswith(("man", "men", "is", "us")):
        return None
    if base.endswith("y") and len(base) > 1 and base[-2] not in _VOWELS:
        return base[:-1] + "ies"
    return base + ("es" if base.endswith(("s", "x", "z", "ch", "sh")) else "s")


def _doubles(base: str) -> bool | None:
    """Does the last consonant double (stop, stopping)? None where it depends on a stress that spelling does not show."""
    if base in _STRESSED_LAST:
        return True
    if len(base) < 3 or base[-1] in "wxy" + _VOWELS or base[-2] not in _VOWELS or base[-3] in _VOWELS:
        return False
    if sum(letter in _VOWELS + "y" for letter in base) == 1:
        return True
    return (
        False
        if base.endswith(("en", "er", "on", "it", "et", "op", "al", "el")) and not base.endswith(_STRESSED)
        else None
    )


_STRESSED = ("fer", "mit", "ter", "cur", "get", "gin", "pel", "bel", "quit", "ber", "set")
