"""Answers of a causal language model: how a prompt goes on, by transformers' own `generate`. Prompts of several requests share a pass,
each with its own bounds and its own random numbers, so a text depends on its prompt, options and seed and not on its company. Shapes:
B rows, L tokens, V entries of the vocabulary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestration import inference
from orchestration.answers.base import Answers
from orchestration.answers.facts import positions
from orchestration.package import Package

SAME = 1e-4  # of a logit, relative where it is above 1: padding must change no more than rounding does


@dataclass(frozen=True)
class Prompt:
    """One text to be drawn. `seed`: of its own generator."""

    ids: list[int]
    truncated: bool
    seed: int
    options: Mapping[str, Any]


class Continuations(Answers):
    def __init__(self, package: Package, *, micro_batch: int, limit_s: float) -> None:
        super().__init__(package, micro_batch=micro_batch, limit_s=limit_s)
        self._library = package.tokenizer.library
        self._positions = positions(package.folder)
        self._ends = self._stops()
        encoding = self._library.encode("a")
        # What stands before each text, and not behind: the end token there would say that the text is over.
        self._head = encoding.ids[: encoding.special_tokens_mask.index(0)]
        with inference.torch_threads(package.threads):
            self._pads = self._padding_changes_nothing()

    def items(self, texts: Sequence[str], options: Mapping[str, Any]) -> list[Prompt]:
        """`sequences` items a text, side by side; the n-th has the seed that n requests later would give alone."""
        room = self.package.max_length
        if self._positions:
            room = min(room, self._positions - options["max_new_tokens"])
        found = []
        for text in self.package.clean(texts):
            content = self._library.encode(text, add_special_tokens=False).ids
            kept = content[max(0, len(content) - max(1, room - len(self._head))) :]
            ids = [*self._head, *kept] or self._ends[:1] or [self.package.pad_id]
            cut = len(kept) < len(content)
            found += [Prompt(ids, cut, options["seed"] + turn, options) for turn in range(options["sequences"])]
        return found

    def compute(self, items: Sequence[Prompt]) -> list[dict[str, Any]]:
        """Prompts are padded on the left to share a pass; where that changes the model's numbers, only those of one length do."""
        groups: dict[int, list[int]] = {}
        for row, item in enumerate(items):
            groups.setdefault(0 if self._pads else len(item.ids), []).append(row)
        found: dict[int, dict[str, Any]] = {}
        with inference.torch_threads(self.package.threads):
            for rows in groups.values():
                found.update(zip(rows, self._pass([items[row] for row in rows]), strict=True))
        return [found[row] for row in range(len(items))]

    def payload(self, items: Sequence[Prompt], found: Sequence[Any], options: Mapping[str, Any]) -> Any:
        drawn = {"seed": options["seed"]} if options["temperature"] else {}
        return [
            {
                "sequences": list(found[at : at + options["sequences"]]),
                "prompt_tokens": len(items[at].ids),
                "truncated": items[at].truncated,
                **drawn,
            }
            for at in range(0, len(items), options["sequences"])
        ]

    # -------------------------------------------------------------------------------------------- one pass

    def _pass(self, items: Sequence[Prompt]) -> list[dict[str, Any]]:
        from orchestration.answers.steps import Draws, Ends

        ends = Ends([item.options["max_new_tokens"] for item in items], [self._stopped(item) for item in items])
        longest = max(item.options["max_new_tokens"] for item in items)
        ids_BL = self._generate(
            items,
            {"max_new_tokens": longest, "max_time": self.limit_s},
            logits_processor=[Draws([(item.options, item.seed) for item in items])],
            stopping_criteria=[ends],
        )
        start = self._start(items)
        new = [ids_L[: ends.counts.get(row)] for row, ids_L in enumerate(ids_BL[:, start:].tolist())]
        return [self._told(item, ids) for item, ids in zip(items, new, strict=True)]

    def _generate(self, items: Sequence[Prompt], settings: Mapping[str, Any], **steps: Any) -> Any:
        """`settings`: of transformers' GenerationConfig, beside those that hold always."""
        from transformers import GenerationConfig

        config = GenerationConfig(
            do_sample=False,  # `Draws` draws, a row with its own numbers: what is likeliest after it is what was drawn
            num_beams=1,
            eos_token_id=self._ends or None,
            pad_token_id=self.package.pad_id,
            **self._begin(),
            **settings,
        )
        return self._writer.generate(**self._asked(items), generation_config=config, **steps)

    def _begin(self) -> dict[str, Any]:
        """Settings that say what a new text begins with."""
        return {}

    def _stops(self) -> list[int]:
        """Tokens that end a text."""
        found = self.package.model.generation_config.eos_token_id
        return [] if found is None else [int(found)] if isinstance(found, int) else [int(number) for number in found]

    @property
    def _writer(self) -> Any:
        """The model that generates."""
        return self.package.model

    def _asked(self, items: Sequence[Prompt]) -> dict[str, Any]:
        """What it is given: here prompts padded on the left, so that all go on from the last place."""
        from models.processing import collate

        reversed_BL, mask_BL = collate([item.ids[::-1] for item in items], self.package.pad_id)
        return {"inputs": reversed_BL.flip(1), "attention_mask": mask_BL.flip(1)}

    def _start(self, items: Sequence[Prompt]) -> int:
        """Where new tokens stand in what `generate` gives."""
        return max(len(item.ids) for item in items)

    def _stopped(self, item: Prompt) -> Any:
        """Whether the new tokens hold a string that ends the text; None where there is no such string."""
        stops = item.options["stop"]
        return (lambda new: any(stop in self._text(item, new) for stop in stops)) if stops else None

    def _told(self, item: Prompt, ids: list[int]) -> dict[str, Any]:
        """`ids`: new tokens of one row, behind an end token padding."""
        end = next((at for at, number in enumerate(ids) if number in self._ends), None)
        kept = ids if end is None else ids[:end]
        text = self._text(item, kept)
        cuts = [at for stop in item.options["stop"] if (at := text.find(stop)) >= 0]
        over = end is not None or bool(cuts)
        tokens = len(kept) if end is None else end + 1
        finish = "stop" if over else "length" if tokens >= item.options["max_new_tokens"] else "time"
        return {"text": text[: min(cuts)] if cuts else text, "finish": finish, "tokens": tokens}

    def _text(self, item: Prompt, new: list[int]) -> str:
        """What the new tokens add to the prompt: decoded alone they would lose the space before them, or have one too many."""
        before, whole = self._library.decode(item.ids), self._library.decode([*item.ids, *new])
        return whole[len(before) :] if whole.startswith(before) else self._library.decode(new)

    def _padding_changes_nothing(self) -> bool:
        """Asked of the model itself, once: families differ in what they make of left padding."""
        ids = [*self._head, *self._library.encode("so it is", add_special_tokens=False).ids]

        def first(rows: list[list[int]]) -> Any:
            settings = {"max_new_tokens": 1, "return_dict_in_generate": True, "output_logits": True}
            told = self._generate([Prompt(row, False, 0, {}) for row in rows], settings)
            return told.logits[0][-1].float()

        alone_V, beside_V = first([ids]), first([ids * 3, ids])
        return bool(((alone_V - beside_V).abs() <= SAME * alone_V.abs().clamp(min=1)).all())
