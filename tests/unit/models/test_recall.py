"""A memory that a language model asks at each token: against its formula, cached and not, written and read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from models import recall
from models.families import ModelError

FACTS = [[1, 5, 6, 7, 2], [1, 5, 6, 8, 2], [1, 5, 6, 8, 2], [1, 9, 10, 11, 2], [1, 12, 13, 2]]
HELD = [[1, 5, 6, 8, 2], [1, 12, 13, 2], [1, 9, 10, 14, 2]]
GPT2 = {"model_type": "gpt2", "vocab_size": 16, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}
LLAMA = {"model_type": "llama", "vocab_size": 16, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
KINDS = {"gpt2": GPT2, "llama": {**LLAMA, "num_key_value_heads": 1, "intermediate_size": 32}}
ENDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(3)
    made = AutoModelForCausalLM.from_config(AutoConfig.for_model(**KINDS[request.param], **ENDS)).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.4)
    return made


def _remembering(model: Any, neighbours: int = 4) -> recall.Recall:
    return recall.memorize(model, FACTS, HELD, neighbours=neighbours, pad_id=0)


def _logits(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0]  # type: ignore[no-any-return]


def _logits_of(model: Any, rows: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=rows).logits  # type: ignore[no-any-return]


@pytest.mark.parametrize("neighbours", [3, 100])
def test_each_token_is_a_mixture_of_the_model_and_of_what_follows_near_places(model: Any, neighbours: int) -> None:
    """By the formula, fact by fact and place by place."""
    found = _remembering(model, neighbours)
    states = {}
    for fact in FACTS:
        with torch.no_grad():
            output = model(input_ids=torch.tensor([fact]), output_hidden_states=True)
        for at in range(1, len(fact)):
            states[tuple(fact[:at])] = output.hidden_states[-1][0, at - 1]
    center_D = torch.stack(list(states.values())).mean(0)
    states = {place: center_D + (key_D - center_D).half().float() for place, key_D in states.items()}
    ids = [1, 5, 6, 9, 10]
    with torch.no_grad():
        hidden_LD = model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0]
    own_LV = _logits(model, ids).softmax(-1)
    recall.attach(model, found)
    told_LV = _logits(model, ids)
    assert torch.allclose(told_LV.exp().sum(-1), torch.ones(len(ids)), atol=1e-5)
    for at, hidden_D in enumerate(hidden_LD):
        ranked = sorted((float((key - hidden_D).square().sum()), place) for place, key in states.items())
        least = ranked[0][0]
        beyond = np.exp((least - ranked[neighbours][0]) / found.temperature) if neighbours < len(ranked) else 0.0
        said_V = torch.zeros(16)
        for distance, place in ranked[:neighbours]:
            weight = np.exp((least - distance) / found.temperature) - beyond
            for fact in FACTS:
                if tuple(fact[: len(place)]) == place and len(fact) > len(place):
                    said_V[fact[len(place)]] += weight
        wanted_V = (1 - found.share) * own_LV[at] + found.share * said_V / said_V.sum()
        assert torch.allclose(told_LV[at].exp(), wanted_V, atol=2e-4)


def test_a_memory_says_what_the_model_never_learnt_cached_or_not_and_in_company(model: Any) -> None:
    asked = [[1, 9], [1, 12], [1, 9, 10]]
    plain = model.generate(torch.tensor([asked[2]]), max_new_tokens=2, do_sample=False)[0, 3:].tolist()
    recall.attach(model, _remembering(model))
    alone = []
    for ids in asked:
        for cached in (True, False):
            found = model.generate(torch.tensor([ids]), max_new_tokens=4, do_sample=False, use_cache=cached)
            alone.append(found[0, len(ids) :].tolist())
    assert alone[0::2] == alone[1::2] == [[10, 11, 2], [13, 2], [11, 2]]
    assert plain != [11, 2]
    padded = torch.tensor([[0, *asked[0]], asked[2]])
    together = model.generate(padded, attention_mask=(padded > 0).long(), max_new_tokens=3, do_sample=False)
    assert together[:, 3:].tolist() == [[10, 11, 2], [11, 2, 0]]


def test_how_much_it_is_worth_is_what_held_rows_say(model: Any) -> None:
    """Facts of other words than the held ones are worth nothing, and change nothing; those of the same ones are worth most."""
    others = recall.memorize(model, [[1, 3, 4, 3, 2]], [[1, 14, 15, 14, 15]], neighbours=4, pad_id=0)
    same = recall.memorize(model, FACTS, FACTS, neighbours=4, pad_id=0)
    assert others.share == 0.0
    assert same.share > 0.5
    before = _logits(model, [1, 5, 6])
    recall.attach(model, others)
    others.near = None  # type: ignore[assignment,method-assign]  # it is not even asked
    assert torch.equal(_logits(model, [1, 5, 6]), before)


def test_what_all_states_have_in_common_hides_no_neighbour_and_company_changes_nothing() -> None:
    """States whose cosine is 0.999, as those of the last layer of pretrained models can be."""
    torch.manual_seed(3)
    config = {**GPT2, "vocab_size": 64, "n_embd": 64, "n_positions": 16}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config, **ENDS)).eval()
    with torch.no_grad():
        model.transformer.ln_f.bias += 20.0
    drawn = np.random.Generator(np.random.PCG64(1)).integers(3, 64, (400, 6))
    facts = [[1, *row, 2] for row in drawn.tolist()]
    found = recall.memorize(model, facts, facts[:20], neighbours=8, pad_id=0)
    found.share, found.temperature = 0.5, found.temperature * 3
    rows = torch.tensor([[1, *row] for row in drawn[::-1].copy().tolist()[:50]])
    with torch.no_grad():
        hidden_QD = model.transformer(rows).last_hidden_state[:, 3]
    assert torch.nn.functional.cosine_similarity(hidden_QD[:1], hidden_QD[1:]).min() > 0.99
    place_QK, _ = found.near(hidden_QD)
    exact_QU = torch.cdist((hidden_QD - found.center_D).double(), found.keys_UD.double())
    assert torch.equal(place_QK, exact_QU.topk(9, largest=False).indices)
    recall.attach(model, found)
    together = _logits_of(model, rows)
    alone = torch.cat([_logits_of(model, row[None]) for row in rows])
    assert torch.allclose(alone, together, rtol=2e-4, atol=2e-4)


def test_what_is_written_says_the_same_when_it_is_read(model: Any, tmp_path: Path) -> None:
    recall.write(_remembering(model), tmp_path)
    first = (tmp_path / recall.FILE).read_bytes()
    names = set(dict(model.named_parameters()))
    recall.attach(model, recall.read(tmp_path))
    assert set(dict(model.named_parameters())) == names  # nothing to train, and nothing in the weights' file
    assert not {name for name in model.state_dict() if recall.CHILD in name}
    once = _logits(model, [1, 5, 6])
    recall.write(recall.read(tmp_path), tmp_path)
    assert (tmp_path / recall.FILE).read_bytes() == first
    recall.silence(model)
    assert not torch.allclose(_logits(model, [1, 5, 6]).log_softmax(-1), once)


def test_no_facts_no_rows_and_no_file_are_said(model: Any, tmp_path: Path) -> None:
    for facts, held in (([[1]], HELD), (FACTS, [[1]]), (FACTS, [])):
        with pytest.raises(ModelError, match=r"no fact of two tokens or more, or no validation row"):
            recall.memorize(model, facts, held, neighbours=4, pad_id=0)
    with pytest.raises(ModelError, match=r"memory\.npz: missing"):
        recall.read(tmp_path)
