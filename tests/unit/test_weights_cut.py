"""A pretrained model with some of its layers alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models.config import ModelConfig
from models.families import ModelError
from models.scratch import Shapes
from models.text import build
from orchestration.storage import Storage
from orchestration.weights import model_folder, stage_model


def test_picked_layers_are_the_pretrained_ones_in_that_order(minilm: Path, tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    config = ModelConfig(path=str(minilm), layers_from=[4, 1])
    made = stage_model(config, storage, shapes=Shapes(positions=64))
    assert (made.config["num_hidden_layers"], stage_model(config, storage, shapes=Shapes(positions=64)).rel) == (
        2,
        made.rel,
    )
    cut = dict(build(config, storage.fetch(made.rel), ["a", "b"]).named_parameters())
    whole = dict(build(ModelConfig(path=str(minilm)), minilm, ["a", "b"]).named_parameters())
    path = "bert.encoder.layer.{}.output.dense.weight"
    for new, old in ((0, 4), (1, 1)):
        assert torch.equal(cut[path.format(new)], whole[path.format(old)])
    assert torch.equal(cut["bert.embeddings.word_embeddings.weight"], whole["bert.embeddings.word_embeddings.weight"])
    assert not any("layer.2." in name for name in cut)
    with model_folder(config, storage, shapes=Shapes(positions=64)) as folder:
        assert (folder / "tokenizer.json").is_file()


def test_a_layer_that_is_not_there_is_refused(minilm: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="layer 6 is not there; the model has layers 0 to 5"):
        stage_model(
            ModelConfig(path=str(minilm), layers_from=[0, 6]), Storage(str(tmp_path)), shapes=Shapes(positions=64)
        )
    with pytest.raises(ValueError, match="layers_from picks layers of a pretrained model"):
        ModelConfig(family="bert", tokenizer="t", layers_from=[0])
