"""The tasks that an endpoint can answer for: route, options with their bounds, and what an answer looks like. One table for the
check of a request and for its OpenAPI page. Imports no torch, so router and driver read it too."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestration import inference

Values = dict[str, Any]
MAX_STOPS, MAX_STOP_CHARS = 8, 100


class Unanswerable(ValueError):
    """A request that cannot be answered. `where`: an option's name, or the number of a row; `part`: of the row, where it has several."""

    def __init__(self, where: str | int, what: str, *, part: str | None = None) -> None:
        shown = where if isinstance(where, str) else f"{part or 'text'} {where}"
        super().__init__(f"{shown} {what}")
        self.where, self.what, self.part = where, what, part


@dataclass(frozen=True)
class Option:
    """A field of a request beside its texts. `kind`: flag, integer, number or strings. `copies`: a text counts so many times
    against max_texts."""

    name: str
    kind: str
    default: Any
    text: str
    low: float | None = None
    high: float | None = None
    copies: bool = False

    def read(self, value: Any) -> Any:
        """Raises Unanswerable with what was found and what is allowed."""
        if value is None and self.default is None:
            return None
        if self.kind == "strings":
            return _strings(self.name, value)
        if self.kind == "flag":
            return self._of(value, bool, "true or false")
        whole = self.kind == "integer"
        noun = "a whole number" if whole else "a number"
        # JSON's true is Python's bool, and that an int: it is no number here. NaN compares false with everything.
        number = self._of(value, int if whole else (int, float), f"{noun} from {self.low:g} to {self.high:g}")
        if isinstance(number, bool) or not self.low <= number <= self.high:  # type: ignore[operator]
            found = kind_of(value) if isinstance(number, bool) else str(value)[:40]
            raise Unanswerable(self.name, f"is {found}; allowed: {noun} from {self.low:g} to {self.high:g}")
        return number

    def _of(self, value: Any, types: Any, allowed: str) -> Any:
        if not isinstance(value, types):
            raise Unanswerable(self.name, f"is {kind_of(value)}; allowed: {allowed}")
        return value

    def schema(self) -> Values:
        shape: dict[str, Values] = {
            "flag": {"type": "boolean"},
            "integer": {"type": "integer", "minimum": self.low, "maximum": self.high},
            "number": {"type": "number", "minimum": self.low, "maximum": self.high},
            "strings": {"type": "array", "items": {"type": "string", "minLength": 1}, "maxItems": MAX_STOPS},
        }
        default = {} if self.default is None else {"default": self.default}
        return {**shape[self.kind], **default, "description": self.text}


def _strings(name: str, value: Any) -> list[str]:
    """A lone string is a list of one."""
    found = [value] if isinstance(value, str) else value
    fits = isinstance(found, list) and len(found) <= MAX_STOPS
    if not fits or not all(isinstance(one, str) and 0 < len(one) <= MAX_STOP_CHARS for one in found):
        raise Unanswerable(
            name, f"is {kind_of(value)}; allowed: up to {MAX_STOPS} strings of 1 to {MAX_STOP_CHARS} characters"
        )
    return list(found)


def kind_of(value: Any) -> str:
    """What a JSON value is, in words."""
    names = {type(None): "null", bool: "true or false", int: "a number", float: "a number", str: "a string"}
    if isinstance(value, list):
        return f"a list of {len(value)}" if value else "an empty list"
    return names.get(type(value), "an object")


@dataclass(frozen=True)
class Kind:
    """One task's route. `settle(texts, options, facts)`: the options that hold, or Unanswerable. `show(payload, options, labels)`: one
    result a text. `result`: JSON schema of its properties. `first`: fields of a text and of several; `second`: of the second texts, for
    packages that read pairs; `beside`: an example of one. `example`: '' where a row needs no text."""

    path: str
    summary: str
    example: str
    result: Values
    first: tuple[str, str] = ("text", "texts")
    second: tuple[str, str] | None = None
    beside: str = "And what came of it."
    options: tuple[Option, ...] = ()
    settle: Callable[[Sequence[str], Values, Mapping[str, Any]], Values] = lambda texts, options, facts: options
    show: Callable[[Any, Values, Sequence[str]], list[Values]] = lambda payload, options, labels: payload
    names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        fields = (*self.first, *(self.second or ()))
        object.__setattr__(self, "names", (*fields, *(option.name for option in self.options)))

    def settled(self, texts: Sequence[Any], options: Values, facts: Mapping[str, Any]) -> Values:
        """The options that hold. Raises Unanswerable, also for a pair of texts where the package reads one, and the other way round."""
        if self.second and isinstance(texts[0], tuple) != bool(facts.get("pair")):
            field, told = self.second[0], "this model reads two texts at once; send it too"
            if not facts.get("pair"):
                told = "this model reads one text; leave it out"
            raise Unanswerable(field, told)
        return self.settle(texts, options, facts)

    def body(self, texts: Sequence[Any]) -> Values:
        """The request that asks for these texts, or pairs of them."""
        if self.second is None or not isinstance(texts[0], tuple):
            return {self.first[1]: list(texts)}
        return {self.first[1]: [one for one, _ in texts], self.second[1]: [other for _, other in texts]}

    def read(self, body: Mapping[str, Any]) -> Values:
        """Every option, given or not. Raises Unanswerable."""
        return {
            option.name: option.read(body[option.name]) if option.name in body else option.default
            for option in self.options
        }


# ------------------------------------------------------------------------------------------------ what differs by task


def _scores(payload: Any, options: Values, labels: Sequence[str]) -> list[Values]:
    logits_NC, truncated = payload
    results = inference.results(logits_NC, labels, truncated)
    if options["logits"]:
        for result, logits_C in zip(results, logits_NC.tolist(), strict=True):
            result["logits"] = dict(zip(labels, logits_C, strict=True))
    return results


def _with_masks(texts: Sequence[Any], options: Values, known: Mapping[str, Any]) -> Values:
    """Of texts, or of rows that have one."""
    mask = known["mask_token"]
    for row, sent in enumerate(texts):
        part = None if isinstance(sent, str) else "text"
        if mask not in (sent if isinstance(sent, str) else sent.get("text", "")):
            raise Unanswerable(row, f"has no mask; write {mask} where a word is to be found", part=part)
    return options


def _drawn(texts: Sequence[str], options: Values, known: Mapping[str, Any]) -> Values:
    """The seed is drawn here, once, so that a request that is asked again of another replica gives the same text."""
    most = known["max_new_tokens"]
    if options["max_new_tokens"] > most:
        raise Unanswerable(
            "max_new_tokens",
            f"is {options['max_new_tokens']}; this endpoint gives at most {most} (serve.max_new_tokens and the model's positions)",
        )
    if options["sequences"] > 1 and not options["temperature"]:
        raise Unanswerable(
            "sequences", f"is {options['sequences']}, but temperature 0 gives one text; set temperature above 0"
        )
    seed = secrets.randbelow(2**31) if options["seed"] is None else options["seed"]
    return {**options, "seed": seed}


_NUMBER, _STRING, _COUNT = {"type": "number"}, {"type": "string"}, {"type": "integer"}
_TRUNCATED = {"type": "boolean", "description": "The text had more tokens than the model reads."}
_SHARE = {"type": "number", "minimum": 0, "maximum": 1}


def _object(**properties: Values) -> Values:
    return {"type": "object", "properties": properties}


def _list(items: Values) -> Values:
    return {"type": "array", "items": items}


_BY_LABEL = {"type": "object", "additionalProperties": _NUMBER}
_FINISH = {
    "enum": ["stop", "length", "time"],
    "description": "stop: its end or a string of `stop`; length: max_new_tokens.",
}
_GENERATION = (
    Option(
        "max_new_tokens", "integer", 64, "Most tokens of each text; the endpoint's own bound may be lower.", 1, 2**16
    ),
    Option(
        "temperature", "number", 0, "0: the likeliest token each time; above: drawn, the flatter the higher.", 0, 10
    ),
    Option("top_k", "integer", 0, "Draw from so many of the likeliest tokens; 0: from all.", 0, 2**20),
    Option("top_p", "number", 1.0, "Draw from the likeliest tokens that hold this share.", 1e-6, 1),
    Option("sequences", "integer", 1, "Texts drawn for each prompt.", 1, 64, copies=True),
    Option("seed", "integer", None, "Same seed, same text; absent: drawn, and told in the answer.", 0, 2**53),
    Option("stop", "strings", [], "The text ends before the first of these."),
)


def _written(cut: str) -> Values:
    """What is said of generated texts. `cut`: what `truncated` means."""
    return {
        "sequences": _list(_object(text=_STRING, finish=_FINISH, tokens=_COUNT)),
        "prompt_tokens": _COUNT,
        "truncated": {"type": "boolean", "description": cut},
        "seed": {**_COUNT, "description": "Where texts were drawn."},
    }


KINDS: dict[str, Kind] = {
    "classification": Kind(
        path="/v1/classify",
        summary="Label and scores of each text",
        example="A quiet, moving film.",
        options=(Option("logits", "flag", False, "Tell the logits too."),),
        second=("pair", "pairs"),
        show=_scores,
        result={
            "label": _STRING,
            "score": {**_NUMBER, "description": "Probability of the label."},
            "scores": _BY_LABEL,
            "truncated": _TRUNCATED,
            "logits": {**_BY_LABEL, "description": "Where asked for."},
        },
    ),
    "heads": Kind(
        path="/v1/classify",
        summary="Label and scores of each text, for each head",
        example="A quiet, moving film.",
        show=lambda payload, options, labels: inference.by_head(payload[0], payload[1], labels),
        result={"heads": {"additionalProperties": _object(label=_STRING, scores=_BY_LABEL)}, "truncated": _TRUNCATED},
    ),
    "regression": Kind(
        path="/v1/score",
        summary="A number for each text",
        example="A quiet, moving film.",
        second=("pair", "pairs"),
        result={"value": _NUMBER, "truncated": _TRUNCATED},
    ),
    "tagging": Kind(
        path="/v1/tag",
        summary="A tag for each word of each text; words are divided by white space",
        example="We met Anna in Paris .",
        result={
            "words": _list(_object(word=_STRING, start=_COUNT, end=_COUNT, tag=_STRING, probability=_SHARE)),
            "truncated": _TRUNCATED,
        },
    ),
    "spans": Kind(
        path="/v1/extract",
        summary="The answer to each question, word for word from its context",
        example="Where did we meet Anna?",
        first=("question", "questions"),
        second=("context", "contexts"),
        beside="We met Anna in Paris.",
        options=(Option("max_answer_tokens", "integer", 30, "Most tokens of an answer.", 1, 1000),),
        result={
            "answer": {"type": ["string", "null"], "description": "null: the context has no answer."},
            "start": {"type": ["integer", "null"], "description": "Characters of the context before it."},
            "end": {"type": ["integer", "null"]},
            "probability": _SHARE,
            "truncated": _TRUNCATED,
        },
    ),
    "masked_lm": Kind(
        path="/v1/fill",
        summary="The likeliest tokens in place of each mask token of each text",
        example="A quiet, [MASK] film.",
        options=(Option("top", "integer", 5, "Tokens told of each mask.", 1, 1000),),
        settle=_with_masks,
        result={"masks": _list(_list(_object(token=_STRING, probability=_SHARE))), "truncated": _TRUNCATED},
    ),
    "sentence_order": Kind(
        path="/v1/order",
        summary="Whether two texts that belong together stand in their order",
        example="We waited two hours for a table.",
        second=("pair", "pairs"),
        beside="Then the food was cold.",
        result={
            "in_order": {"type": "boolean"},
            "probability": {**_SHARE, "description": "That they stand in their order."},
            "truncated": _TRUNCATED,
        },
    ),
    "next_sentence": Kind(
        path="/v1/follows",
        summary="Whether the second text follows the first, or comes from somewhere else",
        example="We waited two hours for a table.",
        second=("pair", "pairs"),
        beside="Then the food was cold.",
        result={
            "follows": {"type": "boolean"},
            "probability": {**_SHARE, "description": "That the second text follows the first."},
            "truncated": _TRUNCATED,
        },
    ),
    "causal_lm": Kind(
        path="/v1/generate",
        summary="Texts that go on from each prompt",
        example="A quiet, moving",
        options=_GENERATION,
        settle=_drawn,
        result=_written("The beginning of the prompt was left out."),
    ),
    "seq2seq": Kind(
        path="/v1/generate",
        summary="The text that the model writes for each text",
        example="A quiet, moving film.",
        options=_GENERATION,
        settle=_drawn,
        result=_written("The end of the text was left out."),
    ),
    "denoising": Kind(
        path="/v1/generate",
        summary="What the model writes for each text with holes",
        example="A quiet, moving film.",
        options=_GENERATION,
        settle=_drawn,
        result=_written("The end of the text was left out."),
    ),
    "captioning": Kind(
        path="/v1/caption",
        summary="A text for the picture or sound of each row; its `text`, where sent, is what the text begins with",
        example="",
        options=_GENERATION,
        settle=_drawn,
        result=_written("The end of what was sent as text was left out."),
    ),
    "matching": Kind(
        path="/v1/match",
        summary="Whether the text of each row belongs to the rest of it",
        example="grinning face",
        result={"match": _SHARE, "truncated": _TRUNCATED},
    ),
    "contrastive": Kind(
        path="/v1/embed",
        summary="A vector for each part of each row, comparable across parts",
        example="grinning face",
        result={
            "vectors": {
                "type": "object",
                "additionalProperties": _list(_NUMBER),
                "description": "Of length 1, by part.",
            },
            "truncated": _TRUNCATED,
        },
    ),
}
