"""A memory of facts in a model: what it changes, what it finds, and what it may not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models import memory
from models.building import build, skeleton
from models.config import MemoryConfig, ModelConfig
from models.depth import depth_groups
from models.families import ModelError
from models.memory import Memory
from models.tasks import make
from models.tasks.base import Rows
from orchestration.storage import Storage
from tests.tiny import BERT, make_weights

LABELS = ["no", "yes"]
FACTS = [[1, 5, 6], [1, 7, 8, 9], [1, 20, 21], [1, 22, 23, 24], [1, 30, 31]]


@pytest.fixture(params=["bert", "distilbert"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    other = {"model_type": "distilbert", "vocab_size": 64, "dim": 32, "n_layers": 3, "n_heads": 2, "hidden_dim": 64}
    storage = Storage(str(tmp_path))
    rel = make_weights(storage, config=BERT if request.param == "bert" else {**other, "pad_token_id": 0})
    made = Path(storage.fetch(rel))
    np.save(made / memory.FILE, memory.table(made, FACTS, pad_id=0))
    return made


def _config(folder: Path, **more: int) -> ModelConfig:
    return ModelConfig(path=str(folder), memory=MemoryConfig(**more), dropout=0.0)


def _logits(model: torch.nn.Module, config: ModelConfig, rows: Rows) -> torch.Tensor:
    task = make(config, LABELS, Path(str(config.path)))
    return task.read(model(**task.given(rows, 0)))  # type: ignore[no-any-return]


ROWS = Rows([[1, 5, 6], [1, 22, 23, 24, 3]], withheld=[[], [3]])


def test_an_untrained_memory_changes_nothing_and_learns_from_the_first_step(folder: Path) -> None:
    config = _config(folder)
    plain = build(ModelConfig(path=str(folder), dropout=0.0), folder, LABELS)
    model = build(config, folder, LABELS)
    logits_BC = _logits(model, config, ROWS)
    assert torch.equal(logits_BC, _logits(plain, ModelConfig(path=str(folder)), ROWS))
    logits_BC.square().sum().backward()
    grads = {name: p.grad for name, p in model.named_parameters() if ".memory." in name}
    assert next(grad for name, grad in grads.items() if name.endswith("output.weight")).abs().max() > 0


def test_a_row_finds_the_fact_of_its_own_words_first_unless_it_is_withheld(folder: Path) -> None:
    config = _config(folder, neighbours=2)
    model = build(config, folder, LABELS).eval()
    (found,) = [module for module in model.modules() if isinstance(module, Memory)]
    seen: list[torch.Tensor] = []
    found.nearest = lambda hidden: seen.append(Memory.nearest(found, hidden)) or seen[-1]  # type: ignore[method-assign,func-returns-value]
    _logits(model, config, Rows([[1, 5, 6], [1, 22, 23, 24]]))
    assert seen[-1][:, 0].tolist() == [0, 3]
    _logits(model, config, Rows([[1, 5, 6], [1, 22, 23, 24]], withheld=[[], [3, 1]]))
    assert seen[-1][0, 0] == 0
    assert not {1, 3} & set(seen[-1][1].tolist())


def test_a_trained_memory_answers_the_same_beside_longer_rows(folder: Path) -> None:
    config = _config(folder, neighbours=3)
    model = build(config, folder, LABELS).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".memory.output" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    alone = _logits(model, config, Rows([[1, 5, 6]], withheld=[[2]]))
    beside = _logits(model, config, Rows([[1, 5, 6], [1, *range(2, 30)]], withheld=[[2], []]))
    assert torch.allclose(alone[0], beside[0], atol=1e-5)
    other = _logits(model, config, Rows([[1, 5, 6]], withheld=[[0]]))
    assert (other - alone).abs().max() > 1e-3


def test_its_parameters_lie_in_the_layer_below_the_last_and_its_table_in_no_checkpoint(folder: Path) -> None:
    model = skeleton(_config(folder), folder, LABELS)
    groups = {group: [name for name, _ in members if ".memory." in name] for group, members in depth_groups(model)}
    last = max(int(group.partition(".")[2]) for group in groups if group.startswith("layer."))
    assert [group for group, names in groups.items() if names] == [f"layer.{last - 1}"]
    assert not [name for name in model.state_dict() if "table" in name]


def test_a_folder_without_a_table_and_another_family_are_refused(folder: Path, tmp_path: Path) -> None:
    (folder / memory.FILE).unlink()
    with pytest.raises(ModelError, match="has the table of its facts there"):
        build(_config(folder), folder, LABELS)
    rel = make_weights(
        Storage(str(tmp_path)),
        "weights/gpt2",
        {"model_type": "gpt2", "vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 2},
    )
    other = Path(Storage(str(tmp_path)).fetch(rel))
    with pytest.raises(ModelError, match=r"model\.memory: it can be put into models of bert"):
        build(_config(other), other, LABELS)
