"""How likely a causal language model finds each of several endings of a text. Takes token ids; gives log-probabilities. Knows neither
templates nor tokenizers. Shapes: B texts, C endings, L tokens, V entries of the vocabulary."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

Ids = Sequence[int]


@torch.inference_mode()
def log_likelihoods(model: nn.Module, shared: Ids, texts: Sequence[Ids], endings: Sequence[Ids]) -> torch.Tensor:
    """(B, C) fp32: the summed log-probability of each ending's tokens behind `shared` and the text. What all texts begin with, `shared`, goes
    through the model once, and its keys and values stand before every text. No text and no ending may be empty."""
    before = model(input_ids=torch.tensor([list(shared)]), use_cache=True).past_key_values if shared else None
    joined = [[*text, *ending] for text in texts for ending in endings]
    longest = max(map(len, joined))
    ids_RL = torch.zeros(len(joined), longest, dtype=torch.int64)
    mask_RL = torch.zeros(len(joined), len(shared) + longest, dtype=torch.int64)
    for row, ids in enumerate(joined):
        ids_RL[row, : len(ids)] = torch.tensor(ids)
        mask_RL[row, : len(shared) + len(ids)] = 1
    more: dict[str, Any] = {}
    if before is not None:
        repeated = copy.deepcopy(before)
        repeated.batch_repeat_interleave(len(joined))
        more = {"past_key_values": repeated}
    logits_RLV = model(input_ids=ids_RL, attention_mask=mask_RL, use_cache=before is not None, **more).logits
    found_R = torch.zeros(len(joined))
    for row, ids in enumerate(joined):
        size = len(endings[row % len(endings)])
        at = torch.arange(len(ids) - size - 1, len(ids) - 1)  # each token is told by the place before it
        chance = logits_RLV[row, at].float().log_softmax(-1)
        found_R[row] = chance.gather(1, torch.tensor(ids[-size:])[:, None]).sum()
    return found_R.view(len(texts), len(endings))
