from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForSequenceClassification

from models import optim
from orchestration.training.flops import Encoder, matmul_rate, training_flops
from tests.tiny import BERT

FAMILIES: dict[str, dict[str, Any]] = {
    "bert": {**BERT, "num_hidden_layers": 3},
    "roberta": {**BERT, "model_type": "roberta", "num_hidden_layers": 3},
    "distilbert": {
        "model_type": "distilbert",
        "vocab_size": 64,
        "dim": 32,
        "n_layers": 3,
        "n_heads": 2,
        "hidden_dim": 64,
        "max_position_embeddings": 40,
    },
}
ROWS, LENGTH, LABELS = 5, 11, 3


def _counted(config: dict[str, Any], *, frozen: int) -> int:
    """By torch, of one forward and backward pass. Attention written out: torch's fused kernels count their recomputation."""
    made = AutoConfig.for_model(**config, num_labels=LABELS)
    model = AutoModelForSequenceClassification.from_config(made, attn_implementation="eager")
    optim.apply_freeze(model, optim.plan_groups(model, lr=1e-3, weight_decay=0.0, freeze=frozen))
    ids_BL = torch.randint(3, 60, (ROWS, LENGTH))
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids_BL, attention_mask=torch.ones_like(ids_BL)).logits.sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("frozen", [0, 1, 2, 3, 4])
def test_the_formula_counts_what_torch_counts(family: str, frozen: int) -> None:
    """From everything trained to the head alone."""
    encoder = Encoder.of(FAMILIES[family], LABELS)
    assert training_flops(encoder, [LENGTH] * ROWS, frozen=frozen) == _counted(FAMILIES[family], frozen=frozen)


def test_a_stored_trunk_leaves_the_work_above_it() -> None:
    encoder = Encoder.of(FAMILIES["bert"], LABELS)
    layer = LENGTH * (8 * 32**2 + 4 * 32 * 64) + 4 * LENGTH**2 * 32
    whole, top = (training_flops(encoder, [LENGTH], frozen=3, trunk=trunk) for trunk in (False, True))
    assert whole - top == 2 * layer


def test_rows_count_by_their_own_lengths() -> None:
    encoder = Encoder.of(FAMILIES["bert"], LABELS)
    apart = [training_flops(encoder, [length]) for length in (3, 20)]
    assert training_flops(encoder, [3, 20]) == sum(apart)
    assert apart[1] > 20 / 3 * apart[0] * 0.9


def test_a_family_with_other_names_is_told_by_the_missing_one() -> None:
    with pytest.raises(KeyError, match="num_hidden_layers, n_layers"):
        Encoder.of({"model_type": "other"}, LABELS)


def test_the_rate_is_measured_and_leaves_the_threads_as_they_were() -> None:
    before = torch.get_num_threads()
    assert 1e9 < matmul_rate(1) < 1e13
    assert torch.get_num_threads() == before
