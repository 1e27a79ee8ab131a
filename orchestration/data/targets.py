"""What a row teaches beside its class. Takes a record and its source; gives the row's clean text and, by name, what stands beside it:
`value`, `pair`, `target`, `words` and `tags`, `span`, `head:NAME`. Called by `sources` for each row of a source that names any;
`aligned` makes the store's columns of them. Knows no tokens: places are characters of the clean text."""

from __future__ import annotations

from typing import Any

from orchestration.data.clean import clean_text
from orchestration.data.config import CleanConfig, DataConfig, LabelConfig, SourceConfig
from orchestration.data.fields import MISSING, NO_RULE, Refused, Unusable, labeller, number_of, text_of, wrong
from orchestration.data.shards import HEAD

MOST = 3.4028234663852886e38  # float32's largest
MARK = "x"  # no Unicode form joins it to what stands before it


class Targets:
    """Reads the records of one source. `names`: what each row has. Raises Unusable or Refused."""

    def __init__(self, source: SourceConfig, config: DataConfig) -> None:
        self.source, self.clean = source, config.clean
        self.tag = labeller(LabelConfig(column=source.tags), config.tags) if source.tags is not None else None
        self.heads = {
            HEAD + head: (label.column, labeller(label, config.heads[head]))
            for head, label in (source.labels or {}).items()
        }
        keys = [key for key in ("value", "pair", "target", "tags", "span") if getattr(source, key) is not None]
        self.names = [*keys, *(["words"] if source.tags is not None else []), *self.heads]
        self.heads_alone = bool(self.heads) and source.label is None and not set(keys) - {"pair"}

    def __call__(self, record: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        source = self.source
        found: dict[str, Any] = {}
        raw = text = ""
        if source.tags is not None:
            found = self._tagged(record)
            text = " ".join(filter(None, found["words"]))
        elif source.text is not None:
            raw = text_of(record.get(source.text, MISSING), source.text)
            text = clean_text(raw, self.clean)
        if source.value is not None:
            found["value"] = _value(record.get(source.value, MISSING), source.value)
        context = raw, text
        if source.pair is not None:
            context = self._text(record, source.pair)
            found["pair"] = context[1]
        if source.target is not None:
            found["target"] = self._text(record, source.target)[1]
        if source.span is not None:
            found["span"] = self._span(record, *context)
        for name, (column, label) in self.heads.items():
            value = record.get(column)
            found[name] = NO_RULE if value is None or value == "" else label(value)
        if self.heads_alone and all(found[name] == NO_RULE for name in self.heads):
            raise Refused("no head has a label", text[:60])
        return text, found

    def _text(self, record: dict[str, Any], column: str) -> tuple[str, str]:
        """As it is there, and clean."""
        raw = text_of(record.get(column, MISSING), column)
        text = clean_text(raw, self.clean)
        if not text:
            raise wrong(column, "is empty", raw)
        return raw, text

    def _tagged(self, record: dict[str, Any]) -> dict[str, Any]:
        """Words and tag numbers, as many. A word of which cleaning leaves nothing stays, as an empty one: it has its tag."""
        column, source = self.source.tags, self.source
        assert column is not None
        assert source.text is not None
        assert self.tag is not None
        words = [text_of(word, source.text) for word in _items(record.get(source.text, MISSING), source.text)]
        tags = [self.tag(tag) for tag in _items(record.get(column, MISSING), column)]
        if len(words) != len(tags):
            reason = f"column {column!r} has another number of tags than {source.text!r} has words"
            raise Unusable(reason, f"{len(tags)} tags, {len(words)} words")
        return {"words": [clean_text(word, self.clean) for word in words], "tags": tags}

    def _span(self, record: dict[str, Any], raw: str, text: str) -> tuple[int, int] | None:
        """Where the answer stands in the clean context: its first character and the one behind its last; None without an answer."""
        assert self.source.span is not None
        column, offset = self.source.span.text, self.source.span.start
        if (value := record.get(column, MISSING)) in (None, ""):
            return None
        answer, start = text_of(value, column), number_of(record.get(offset, MISSING))
        if start is None or start < 0 or start != int(start):
            raise wrong(offset, "is not a whole number of characters", record.get(offset, MISSING))
        if not raw.startswith(answer, int(start)):
            raise Unusable(f"column {column!r} does not stand at its offset in the text", answer)
        begin = int(start) + len(answer) - len(answer.lstrip())
        clean = clean_text(answer, self.clean)
        place = _place(raw[:begin], clean, text, self.clean) if clean else None
        if place is None:
            raise Unusable(f"column {column!r} is not in the text once that is clean", answer)
        return place, place + len(clean)


def _place(before: str, answer: str, text: str, config: CleanConfig) -> int | None:
    """Where a clean answer stands in a clean text, of which `before` is what stood before it. Cleaning of the part before gives the
    place exactly where characters change alone; where whole parts go it may be a little off, and the nearest is taken."""
    place = max(0, len(clean_text(before + MARK, config)) - len(MARK))
    if text.startswith(answer, place):
        return place
    if not (config.markup or config.boilerplate):
        return None
    found = text.find(answer, place), text.rfind(answer, 0, place + len(answer))
    return min((at for at in found if at >= 0), key=lambda at: abs(at - place), default=None)


def _items(value: Any, column: str) -> list[Any]:
    if isinstance(value, str):
        return value.split()
    if not isinstance(value, list):
        raise wrong(column, "is neither a list nor text", value)
    return value


def _value(value: Any, column: str) -> float:
    number = number_of(value)
    if number is None or abs(number) > MOST:
        raise wrong(column, "is not a finite number", value)
    return number


def shown(row: dict[str, Any], config: DataConfig, text: str) -> dict[str, str]:
    """Name -> what a row teaches, in words for people."""
    found: dict[str, str] = {}
    for name, value in row.items():
        if name == "tags":
            pairs = zip(row["words"], value, strict=True)
            found[name] = " ".join(f"{word}/{config.tags[tag]}" for word, tag in pairs)
        elif name == "span":
            found[name] = repr(row.get("pair", text)[slice(*value)]) if value else "no answer"
        elif name.startswith(HEAD):
            found[name.removeprefix(HEAD)] = config.heads[name.removeprefix(HEAD)][value] if value >= 0 else "none"
        elif name != "words":
            found[name] = str(value)
    return found
