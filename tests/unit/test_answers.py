"""What each task's package answers: equal to transformers' own pass over the saved folder, alone and in company."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from orchestration import answers
from orchestration import package as packages
from orchestration.answers.kinds import KINDS, Unanswerable
from orchestration.package import Package
from orchestration.storage import Storage
from tests.packages import PREPROCESSING, TAGS, task_package

TEXTS = ["Lovely.", "A dull film, and far too long for what it has.", "The resume was fine."]
PROMPTS = ["A quiet", "We waited two hours for a table and", "The food"]


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    return Storage(str(tmp_path_factory.mktemp("storage")))


@pytest.fixture(scope="module")
def opened(storage: Storage, minilm: Path) -> Any:
    made: dict[str, Package] = {}

    def of(task: str) -> Package:
        if task not in made:
            made[task] = packages.load(storage.fetch(task_package(task, minilm, storage)))
        return made[task]

    return of


def own(package: Package) -> tuple[Any, Any]:
    """transformers' model and tokenizer of the folder."""
    import transformers

    from models.tasks import auto_class

    kind = getattr(transformers, auto_class(package.task.config.task))
    folder = str(package.folder)
    return kind.from_pretrained(folder).eval(), transformers.AutoTokenizer.from_pretrained(folder)


def passed(package: Package, text: str) -> tuple[torch.Tensor, Any, Any]:
    """Logits (L, C) of one text, its encoding and the tokenizer."""
    model, tokenizer = own(package)
    batch = tokenizer(text, return_tensors="pt", return_offsets_mapping=True)
    offsets = batch.pop("offset_mapping")[0].tolist()
    with torch.inference_mode():
        return model(**batch).logits[0], {**batch, "offsets": offsets}, tokenizer


def test_regression_gives_the_model_s_number(opened: Any) -> None:
    package = opened("regression")
    for text, found in zip(TEXTS, package.answer(TEXTS), strict=True):
        assert found["value"] == pytest.approx(float(passed(package, text)[0]), abs=1e-5)
        assert found["truncated"] is False
    assert package.answer(["fine " * 60])[0]["truncated"] is True


def test_two_texts_are_read_as_transformers_reads_them(storage: Storage, minilm: Path) -> None:
    package = packages.load(storage.fetch(task_package("classification", minilm, storage, pair=True)))
    model, tokenizer = own(package)
    pairs = list(zip(TEXTS, PROMPTS, strict=True))
    for (first, second), found in zip(pairs, package.answer(pairs, logits=True), strict=True):
        batch = tokenizer(first, second, return_tensors="pt")
        assert batch["token_type_ids"].max() == 1
        with torch.inference_mode():
            wanted = model(**batch).logits[0].tolist()
        assert list(found["logits"].values()) == pytest.approx(wanted, abs=1e-5)
    told = package.answer([("fine " * 60, "so")])[0]
    assert told["truncated"] is True
    with pytest.raises(Unanswerable, match="pair this model reads two texts at once"):
        package.answer(TEXTS)


def test_an_answer_is_told_by_its_words_and_their_place_in_the_context_as_it_was_sent(opened: Any) -> None:
    package, question = opened("spans"), "What was fine?"
    context = "The re\u0301sume\u0301   was incomprehensibly\tfine. "
    model, tokenizer = own(package)
    (cleaned,) = package.clean([context])
    assert cleaned != context
    batch = tokenizer(question, cleaned, return_tensors="pt", return_offsets_mapping=True)
    offsets = batch.pop("offset_mapping")[0].tolist()
    with torch.inference_mode():
        out = model(**batch)
    start_L, end_L = out.start_logits[0], out.end_logits[0]
    places = [at for at, (a, b) in enumerate(offsets) if batch["token_type_ids"][0, at] == 1 and b > a]
    spans = [(a, b) for a in places for b in places if a <= b < a + 30]
    a, b = max(spans, key=lambda span: float(start_L[span[0]] + end_L[span[1]]))
    nothing = float(start_L[0] + end_L[0]) > float(start_L[a] + end_L[b])
    (found,) = package.answer([(question, context)])
    (plain,) = package.answer([(question, cleaned)])
    wanted = None if nothing else cleaned[offsets[a][0] : offsets[b][1]]
    assert (found["answer"], plain["answer"]) == (wanted, wanted)
    first, last = (0, 0) if nothing else (a, b)
    chance = float(start_L.softmax(-1)[first] * end_L.softmax(-1)[last])
    assert found["probability"] == pytest.approx(chance, abs=1e-5)
    if not nothing:
        assert cleaned[plain["start"] : plain["end"]] == wanted
        assert found["start"] is None or context[found["start"] : found["end"]] == wanted
    one = package.answer([(question, cleaned)], max_answer_tokens=1)[0]["answer"]
    assert one is None or len(tokenizer(one, add_special_tokens=False)["input_ids"]) == 1


def test_each_mask_gets_the_likeliest_tokens_with_their_probability(opened: Any) -> None:
    package, text = opened("masked_lm"), "A [MASK] film, and far too [MASK]."
    logits_LV, batch, tokenizer = passed(package, text)
    beside, found = package.answer(["No [MASK] at all in the other, longer text beside it.", text], top=3)
    assert len(beside["masks"]) == 1
    places = (batch["input_ids"][0] == tokenizer.mask_token_id).nonzero()[:, 0].tolist()
    assert len(found["masks"]) == len(places) == 2
    for place, told in zip(places, found["masks"], strict=True):
        chance_K, ids_K = logits_LV[place].softmax(-1).topk(3)
        assert [one["token"] for one in told] == [tokenizer.decode([number]).strip() for number in ids_K.tolist()]
        assert [one["probability"] for one in told] == pytest.approx(chance_K.tolist(), abs=1e-5)


def test_a_text_without_a_mask_is_refused_with_the_mask_and_one_whose_mask_was_cut_away_says_so(opened: Any) -> None:
    package = opened("masked_lm")
    with pytest.raises(Unanswerable, match=r"text 1 has no mask; write \[MASK\]"):
        package.answer(["a [MASK]", "none"])
    assert package.answer(["fine " * 60 + "[MASK]"]) == [{"masks": [], "truncated": True}]


def test_each_word_gets_the_tag_of_its_first_token_and_its_place_in_the_text(opened: Any) -> None:
    package, text = opened("tagging"), "  The re\u0301sume\u0301   was incomprehensibly\tfine. "
    (found,) = package.answer([text])
    assert [word["word"] for word in found["words"]] == text.split()
    assert all(text[word["start"] : word["end"]] == word["word"] for word in found["words"])
    joined = "The r\u00e9sum\u00e9 was incomprehensibly fine."
    logits_LC, batch, _ = passed(package, joined)
    starts = [0, 4, 11, 15, 32]
    firsts = [next(at for at, (a, b) in enumerate(batch["offsets"]) if a == start and b > a) for start in starts]
    for word, first in zip(found["words"], firsts, strict=True):
        chance, number = logits_LC[first].softmax(-1).max(-1)
        assert word["tag"] == TAGS[int(number)]
        assert word["probability"] == pytest.approx(float(chance), abs=1e-5)


def test_company_changes_nothing_of_a_tag_but_rounding(opened: Any) -> None:
    package = opened("tagging")
    beside, alone = package.answer(TEXTS)[1]["words"], package.answer([TEXTS[1]])[0]["words"]
    assert [word["tag"] for word in beside] == [word["tag"] for word in alone]
    chances = [[word["probability"] for word in words] for words in (beside, alone)]
    assert chances[0] == pytest.approx(chances[1], abs=1e-5)


def test_words_beyond_max_length_are_not_told(opened: Any) -> None:
    (found,) = opened("tagging").answer(["fine " * 60])
    assert found["truncated"] is True
    assert len(found["words"]) == PREPROCESSING["max_length"] - 2


# ------------------------------------------------------------------------------------------------ generation


def generated(package: Package, prompt: str, *, seed: int | None = None, **options: Any) -> str:
    """transformers' own text for one prompt."""
    model, tokenizer = own(package)
    ids = [tokenizer.cls_token_id, *tokenizer(prompt, add_special_tokens=False)["input_ids"]]
    if seed is not None:
        torch.manual_seed(seed)
    drawn = {"do_sample": True, "top_k": 0, "top_p": 1.0, **options} if seed is not None else {"do_sample": False}
    out = model.generate(torch.tensor([ids]), max_new_tokens=12, pad_token_id=0, **drawn)[0].tolist()
    before, whole = tokenizer.decode(ids, skip_special_tokens=True), tokenizer.decode(out, skip_special_tokens=True)
    return str(whole[len(before) :])


def texts_of(found: list[dict[str, Any]]) -> list[str]:
    return [one["text"] for result in found for one in result["sequences"]]


def test_greedy_texts_are_those_of_transformers_alone_and_in_a_batch(opened: Any) -> None:
    package = opened("causal_lm")
    found = package.answer(PROMPTS, max_new_tokens=12)
    assert texts_of(found) == [generated(package, prompt) for prompt in PROMPTS]
    assert found == [package.answer([prompt], max_new_tokens=12)[0] for prompt in PROMPTS]
    assert len({result["prompt_tokens"] for result in found}) > 1  # they were padded


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_what_is_written_is_what_transformers_writes_alone_and_in_a_batch(
    storage: Storage, minilm: Path, family: str
) -> None:
    package = packages.load(storage.fetch(task_package("seq2seq", minilm, storage, family=family)))
    model, tokenizer = own(package)
    model.generation_config.forced_eos_token_id = None
    wanted, drawn = [], []
    for text in TEXTS:
        batch = tokenizer(text, return_tensors="pt")
        given = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "max_new_tokens": 9}
        out = model.generate(**given, do_sample=False, num_beams=1)
        wanted.append(tokenizer.decode(out[0], skip_special_tokens=True))
        torch.manual_seed(7)
        out = model.generate(**given, do_sample=True, top_k=0, top_p=1.0)
        drawn.append(tokenizer.decode(out[0], skip_special_tokens=True))
    found = package.answer(TEXTS, max_new_tokens=9)
    assert texts_of(found) == wanted
    assert found == [package.answer([text], max_new_tokens=9)[0] for text in TEXTS]
    assert texts_of(package.answer(TEXTS, max_new_tokens=9, temperature=1.0, seed=7)) == drawn
    assert len(set(drawn)) > 1


def test_rotary_positions_are_those_of_the_prompt_alone_too(storage: Storage, minilm: Path) -> None:
    package = packages.load(storage.fetch(task_package("causal_lm", minilm, storage, family="llama")))
    found = package.answer(PROMPTS, max_new_tokens=12)
    assert texts_of(found) == [generated(package, prompt) for prompt in PROMPTS]


def test_prompts_share_a_pass_only_because_padding_changes_nothing(opened: Any, monkeypatch: Any) -> None:
    made = answers.of(opened("causal_lm"))
    assert made._pads is True  # type: ignore[attr-defined]
    sizes: list[int] = []
    plain = made._pass  # type: ignore[attr-defined]
    monkeypatch.setattr(made, "_pass", lambda items: (sizes.append(len(items)), plain(items))[1])
    together = made.answer(PROMPTS, max_new_tokens=6)
    monkeypatch.setattr(made, "_pads", False)
    assert made.answer(PROMPTS, max_new_tokens=6) == together
    assert sizes[0] == sum(sizes[1:]) == 3
    assert len(sizes) > 2


def test_a_model_that_padding_disturbs_gets_prompts_of_one_length_alone(opened: Any, monkeypatch: Any) -> None:
    package = opened("causal_lm")
    plain = package.model.generate

    def unmasked(inputs: torch.Tensor, attention_mask: torch.Tensor, **more: Any) -> Any:
        return plain(inputs, attention_mask=torch.ones_like(attention_mask), **more)

    monkeypatch.setattr(package.model, "generate", unmasked)
    assert answers.of(package)._pads is False  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "options", [{}, {"top_k": 20}, {"top_p": 0.6}, {"temperature": 0.5, "top_k": 50, "top_p": 0.9}]
)
def test_a_seed_gives_the_text_that_transformers_draws_with_it(opened: Any, options: dict[str, Any]) -> None:
    package, drawn = opened("causal_lm"), {"temperature": 1.0, **options}
    wanted = [generated(package, prompt, seed=7, **drawn) for prompt in PROMPTS]
    assert texts_of(package.answer(PROMPTS, max_new_tokens=12, seed=7, **drawn)) == wanted
    assert len(set(wanted)) == 3


def test_the_n_th_sequence_is_what_the_n_th_seed_after_gives_alone(opened: Any) -> None:
    package, drawn = opened("causal_lm"), {"temperature": 1.5, "max_new_tokens": 8}
    (found,) = package.answer(PROMPTS[:1], sequences=3, seed=5, **drawn)
    alone = [package.answer(PROMPTS[:1], seed=5 + turn, **drawn)[0] for turn in range(3)]
    assert texts_of([found]) == texts_of(alone)
    assert len(set(texts_of([found]))) == 3
    assert found["seed"] == 5


def test_a_seed_that_was_not_given_is_told_and_gives_the_text_again(opened: Any) -> None:
    package, drawn = opened("causal_lm"), {"temperature": 1.0, "max_new_tokens": 8}
    (found,) = package.answer(PROMPTS[:1], **drawn)
    assert package.answer(PROMPTS[:1], seed=found["seed"], **drawn) == [found]
    assert "seed" not in package.answer(PROMPTS[:1], max_new_tokens=2)[0]


def test_each_text_of_a_batch_has_its_own_end(opened: Any) -> None:
    """Rows of one pass with different bounds, and one that a string stops."""
    made = answers.of(opened("causal_lm"))
    whole = texts_of(made.answer(PROMPTS, max_new_tokens=12))
    stop = whole[1].split()[2]
    options = [KINDS["causal_lm"].read(values) for values in ({"max_new_tokens": 3}, {"stop": stop}, {})]
    items = [
        made.items([prompt], {**values, "max_new_tokens": min(12, values["max_new_tokens"]), "seed": 0})[0]
        for prompt, values in zip(PROMPTS, options, strict=True)
    ]
    short, stopped, plain = made.compute(items)
    assert (short["finish"], short["tokens"]) == ("length", 3)
    assert whole[0].startswith(short["text"])
    assert stopped["finish"] == "stop"
    assert stopped["text"] == whole[1][: whole[1].index(stop)]
    assert stopped["tokens"] < 12
    assert plain["text"] == whole[2]


def test_the_end_token_ends_a_text_and_is_not_told(opened: Any, monkeypatch: Any) -> None:
    made = answers.of(opened("causal_lm"))
    item = made.items(PROMPTS[:1], {**KINDS["causal_lm"].read({}), "seed": 0})[0]
    ids = made._library.encode("so it is", add_special_tokens=False).ids  # type: ignore[attr-defined]
    end = made._ends[0]  # type: ignore[attr-defined]
    told = made._told(item, [*ids, end, 0, 0])  # type: ignore[attr-defined]
    assert (told["text"].strip(), told["finish"], told["tokens"]) == ("so it is", "stop", 4)


def test_a_long_prompt_loses_its_beginning_and_says_so(opened: Any) -> None:
    package = opened("causal_lm")
    long, end = "word " * 80, "the very end"
    kept = PREPROCESSING["max_length"] - 1 - 3
    (cut,) = package.answer([long + end], max_new_tokens=6)
    assert (cut["truncated"], cut["prompt_tokens"]) == (True, PREPROCESSING["max_length"])
    (same,) = package.answer(["word " * kept + end], max_new_tokens=6)
    assert same["truncated"] is False
    assert same["sequences"] == cut["sequences"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0; allowed: a whole number from 1"),
        ({"max_new_tokens": 5000}, "max_new_tokens is 5000; this endpoint gives at most 510"),
        ({"max_new_tokens": 2.5}, "max_new_tokens is a number; allowed: a whole number"),
        ({"temperature": True}, "temperature is true or false; allowed: a number from 0 to 10"),
        ({"temperature": float("nan")}, "temperature is nan; allowed"),
        ({"top_p": 0}, "top_p is 0; allowed"),
        ({"stop": ""}, "stop is a string; allowed: up to 8 strings"),
        ({"stop": ["a"] * 9}, "stop is a list of 9"),
        ({"sequences": 2}, "temperature 0 gives one text"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_wrong_options_are_refused_with_what_is_allowed(opened: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(Unanswerable) as told:
        opened("causal_lm").answer(PROMPTS[:1], **options)
    assert words in str(told.value)


def test_a_pass_that_takes_too_long_gives_what_there_is(opened: Any) -> None:
    made = answers.of(opened("causal_lm"), limit_s=0.0)
    (found,) = made.answer(PROMPTS[:1], max_new_tokens=12)
    assert [(one["finish"], one["tokens"]) for one in found["sequences"]] == [("time", 1)]
