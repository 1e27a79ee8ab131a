from __future__ import annotations

import os

import pytest
import torch
from torch import nn

from orchestration.training import shared, tables

pytestmark = pytest.mark.usefixtures("group_of_one")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "WORTH", 1)


def test_a_tables_gradient_is_that_of_an_embedding_and_lies_in_the_rows_it_names() -> None:
    torch.manual_seed(0)
    plain = nn.Embedding(9, 4, padding_idx=0)
    model = nn.Sequential(nn.Embedding(9, 4, padding_idx=0))
    model.load_state_dict({"0.weight": plain.weight.detach().clone()})
    (table,) = tables.take(model, list(model.parameters()))
    table.weight.grad = torch.zeros_like(table.weight)
    for ids in (torch.tensor([[1, 5, 0], [5, 8, 0]]), torch.tensor([[2, 5, 5]])):  # two micro-batches
        weight = torch.arange(4.0)
        (model(ids) * weight).sum().backward()
        (plain(ids) * weight).sum().backward()
    assert torch.equal(table.weight.grad, plain.weight.grad)
    assert table.rows().tolist() == [1, 2, 5, 8]
    assert table.rows().tolist() == [], "each step begins anew"
    tables.let_go([table])
    assert type(model[0]) is nn.Embedding


def test_tables_are_large_trained_embeddings_with_no_other_use(monkeypatch: pytest.MonkeyPatch) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tied, self.own, self.few, self.frozen = (nn.Embedding(rows, 4) for rows in (8, 8, 2, 8))
            self.output = nn.Linear(4, 8, bias=False)
            self.output.weight = self.tied.weight

    model = Tied()
    monkeypatch.setattr(tables, "WORTH", 32)
    trained = [p for p in model.parameters() if p is not model.frozen.weight]
    assert tables.take(model, trained) == [model.own]


def test_memory_of_another_process_under_the_same_numbers_is_refused() -> None:
    made = shared._create(shared.HEAD + 4 * 3)
    assert made is not None
    descriptor, mark = made
    seen = shared._see((os.getpid(), descriptor, mark), 3)
    seen[1] = 5.0
    assert shared._see((os.getpid(), descriptor, mark), 3).tolist() == [0.0, 5.0, 0.0]
    with pytest.raises(ValueError, match="another"):
        shared._see((os.getpid(), descriptor, b"0" * 16), 3)
    os.close(descriptor)


def test_one_rank_alone_keeps_the_rows_of_a_step_and_sets_them_back() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 1))
    held = tables.Tables(model, list(model.parameters()))
    for ids in (torch.tensor([[1, 5], [5, 8]]), torch.tensor([[0, 0]])):
        model(ids).sum().backward()
        (touched,) = held.touched()
        assert len(touched) == len(set(ids.flatten().tolist()))
        assert torch.equal(touched, model[0].weight.grad[sorted(set(ids.flatten().tolist()))])
        held.clear()
        assert not model[0].weight.grad.any()
