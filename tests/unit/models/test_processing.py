from __future__ import annotations

import numpy as np
import pytest
import torch

from models.processing import collate, collate_packed, segment_mask
from tests.tiny import BERT, VOCABULARY

LENGTHS = [[5, 9, 2], [12], [1, 1, 20]]


@pytest.fixture(scope="module")
def rows() -> list[list[np.ndarray]]:
    """Texts of each packed row."""
    draw = np.random.Generator(np.random.PCG64(3))
    return [[draw.integers(1, VOCABULARY, size=length) for length in lengths] for lengths in LENGTHS]


def test_rows_are_padded_on_the_right_to_the_longest() -> None:
    ids, mask = collate([[5, 6, 7], np.array([8]), []], 9)
    assert ids.tolist() == [[5, 6, 7], [8, 9, 9], [9, 9, 9]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0], [0, 0, 0]]
    with pytest.raises(ValueError, match="at least one row"):
        collate([], 0)


def test_packed_rows_count_segments_from_one_and_restart_positions() -> None:
    ids, segments, positions = collate_packed([[4, 5, 6, 7, 8], [9, 9]], [[2, 3], np.array([2])], 0)
    assert ids.tolist() == [[4, 5, 6, 7, 8], [9, 9, 0, 0, 0]]
    assert segments.tolist() == [[1, 1, 2, 2, 2], [1, 1, 0, 0, 0]]
    assert positions.tolist() == [[0, 1, 0, 1, 2], [0, 1, 0, 0, 0]]
    assert {tensor.dtype for tensor in (ids, segments, positions)} == {torch.int64}


def test_segments_that_do_not_add_up_to_their_row_are_refused() -> None:
    with pytest.raises(ValueError, match="packed row 1 has 3 tokens, and segments of 4"):
        collate_packed([[1], [1, 2, 3]], [[1], [2, 2]], 0)
    with pytest.raises(ValueError, match="shorter"):
        collate_packed([[1], [1, 2, 3]], [[1]], 0)


def test_a_token_sees_its_own_segment_alone() -> None:
    mask = segment_mask(torch.tensor([[1, 1, 2, 0]]))
    assert mask.dtype is torch.bool
    assert mask.int().tolist() == [[[[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]]]


def test_packed_texts_have_the_hidden_states_that_they_have_alone(rows: list[list[np.ndarray]]) -> None:
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(0)
    model = AutoModel.from_config(AutoConfig.for_model(**BERT)).eval()
    ids, segments, positions = collate_packed([np.concatenate(row) for row in rows], LENGTHS, 0)
    with torch.no_grad():
        packed_BLD = model(
            input_ids=ids, attention_mask=segment_mask(segments), position_ids=positions
        ).last_hidden_state
        leaking_BLD = model(
            input_ids=ids, attention_mask=(segments > 0).long(), position_ids=positions
        ).last_hidden_state
        alone = [[model(input_ids=torch.tensor(text)[None]).last_hidden_state[0] for text in row] for row in rows]
    assert packed_BLD.isfinite().all()
    expected = [torch.cat(row) for row in alone]
    for i, row_LD in enumerate(expected):
        assert (packed_BLD[i, : len(row_LD)] - row_LD).abs().max() < 1e-5
    assert (leaking_BLD[0, : len(expected[0])] - expected[0]).abs().max() > 1e-3  # the test can tell
