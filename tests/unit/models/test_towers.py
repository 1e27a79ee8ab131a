"""Models of several encoders: what is missing does not count, towers come from their own folders, and a saved folder opens again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from models.building import build
from models.config import ModelConfig
from models.depth import depth_groups
from models.scratch import Shapes
from orchestration.storage import Storage
from orchestration.weights import stage_model
from tests.tiny import make_tokenizer

SIZE = {"layers": 2, "width": 16, "heads": 2}
LABELS = ["a", "b", "c"]
SHAPES = Shapes(positions=32, image=32, rate=8000, columns=2)


def _made(
    tmp_path: Path, towers: dict[str, Any], fusion: dict[str, Any] | None = None
) -> tuple[ModelConfig, Path, Any]:
    config = ModelConfig.model_validate({"towers": towers, "fusion": fusion, "dropout": 0.0})
    storage = Storage(str(tmp_path / "storage"))
    folder = storage.fetch(stage_model(config, storage, shapes=SHAPES).rel)
    return config, folder, build(config, folder, LABELS, seed=3)


def _towers(tmp_path: Path) -> dict[str, Any]:
    tokenizer = str(make_tokenizer(tmp_path / "tokenizer", "bert"))
    return {
        "text": {"family": "bert", "size": SIZE, "tokenizer": tokenizer},
        "image": {"family": "resnet", "size": SIZE},
        "audio": {"family": "audio", "size": SIZE},
        "series": {"family": "series", "size": SIZE},
    }


def _inputs(rows: int = 4) -> dict[str, torch.Tensor]:
    made = torch.Generator().manual_seed(2)
    return {
        "input_ids": torch.randint(4, 60, (rows, 7), generator=made),
        "attention_mask": torch.ones(rows, 7, dtype=torch.long),
        "text_mask": torch.ones(rows, dtype=torch.bool),
        "pixel_values": torch.randn(rows, 3, 32, 32, generator=made),
        "image_mask": torch.ones(rows, dtype=torch.bool),
        "input_values": torch.randint(-9000, 9000, (rows, 4000), generator=made).to(torch.int16),
        "audio_mask": torch.ones(rows, 4000, dtype=torch.long),
        "series": torch.randn(rows, 16, 2, generator=made),
        "series_mask": torch.ones(rows, 16, dtype=torch.long),
    }


def _clip(folder: Path) -> Any:
    """A folder as CLIP's makers share theirs: both encoders in one, tokenizer and processing beside them."""
    from transformers import CLIPConfig, CLIPModel

    make_tokenizer(folder, "bert")
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}')
    same = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    text = {**same, **ends, "vocab_size": 64, "max_position_embeddings": 32}
    torch.manual_seed(5)
    made = CLIPModel(CLIPConfig(text_config=text, vision_config={**same, "image_size": 32, "patch_size": 8}))
    made.save_pretrained(folder)
    return made.eval()


@pytest.mark.parametrize("whole", [True, False])
def test_the_encoders_of_clip_are_towers_from_its_folder_or_from_their_own(tmp_path: Path, whole: bool) -> None:
    clip = _clip(tmp_path / "clip")
    paths = {"text": str(tmp_path / "clip"), "image": str(tmp_path / "clip")}
    if not whole:
        for name, part in (("text", clip.text_model), ("image", clip.vision_model)):
            paths[name] = str(tmp_path / name)
            _clip(tmp_path / name)
            part.save_pretrained(paths[name])
    config = {"towers": {name: {"path": path} for name, path in paths.items()}, "task": "contrastive", "dropout": 0.0}
    model_config, storage = ModelConfig.model_validate(config), Storage(str(tmp_path / "storage"))
    folder = Path(storage.fetch(stage_model(model_config, storage, shapes=SHAPES).rel))
    model: Any = build(model_config, folder, [], seed=3)
    inputs = {
        key: value for key, value in _inputs().items() if key.startswith(("input_ids", "att", "pix", "text", "im"))
    }
    found = model.eval().features(**inputs)
    with torch.no_grad():
        texts_BLD = clip.text_model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])[0]
        places_BLD = clip.vision_model(pixel_values=inputs["pixel_values"])[0]
    assert torch.allclose(found["text"][0], texts_BLD, atol=1e-5)
    assert torch.allclose(found["image"][0], places_BLD, atol=1e-5)
    model(**inputs).logits.square().sum().backward()
    lost = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert [name for name in lost if not name.startswith("scale")] == []
    names = [name for name, _ in depth_groups(model)]
    assert names[:3] == ["text.embeddings", "text.layer.0", "text.layer.1"]
    assert {"image.embeddings", "image.layer.0", "image.layer.1"} <= set(names)


@pytest.mark.parametrize("first", ["text", "image"])
def test_a_folder_of_both_encoders_lends_one_tower_nothing_of_the_other(tmp_path: Path, first: str) -> None:
    """CLIP's tokenizer is not that of another text encoder, nor are its colours those of another picture encoder."""
    _clip(tmp_path / "clip")
    (tmp_path / "clip" / "tokenizer.json").write_text("{}")
    made = {"text": {"family": "bert", "size": SIZE, "tokenizer": str(make_tokenizer(tmp_path / "own", "bert"))}}
    towers: dict[str, Any] = {**made, "image": {"path": str(tmp_path / "clip")}}
    if first == "image":
        towers = dict(reversed(towers.items()))
    config, storage = ModelConfig.model_validate({"towers": towers}), Storage(str(tmp_path / "storage"))
    folder = Path(storage.fetch(stage_model(config, storage, shapes=SHAPES).rel))
    assert (folder / "tokenizer.json").read_bytes() == (tmp_path / "own" / "tokenizer.json").read_bytes()
    assert "image_mean" in (folder / "preprocessor_config.json").read_text()


@pytest.mark.parametrize("kind", ["concat", "gated", "product", "interactive", "transformer", "cross", "decision"])
def test_what_is_missing_in_a_row_does_not_count_and_every_parameter_learns(tmp_path: Path, kind: str) -> None:
    _, _, model = _made(tmp_path, _towers(tmp_path), {"kind": kind, "width": 16})
    inputs = _inputs()
    for name, row in (("text_mask", 0), ("image_mask", 1), ("audio_mask", 2), ("series_mask", 3)):
        inputs[name][row] = 0
    logits = model(**inputs).logits
    inputs["pixel_values"][1] = 1e3
    inputs["input_values"][2], inputs["series"][3] = 77, float("nan")
    inputs["input_ids"][0] = 9
    assert torch.allclose(model(**inputs).logits, logits, atol=1e-5)
    assert logits.std() > 1e-4
    inputs["series"][3] = 0.0
    model(**inputs).logits.square().sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_each_tower_has_its_depth_groups(tmp_path: Path) -> None:
    _, _, model = _made(tmp_path, _towers(tmp_path))
    names = [name for name, _ in depth_groups(model)]
    assert names[:3] == ["text.embeddings", "text.layer.0", "text.layer.1"]
    assert {name.partition(".")[0] for name in names} == {"text", "image", "audio", "series", "head"}
    assert names[-1] == "head"


def test_towers_take_their_weights_from_their_folders(tmp_path: Path) -> None:
    """A folder of each, saved by transformers, gives the encoders inside."""
    _, _, source = _made(tmp_path, _towers(tmp_path))
    towers: dict[str, Any] = {}
    for name in ("text", "image"):
        folder = tmp_path / name
        source.encoders[name].save_pretrained(folder)
        towers[name] = {"path": str(folder)}
        file = {"text": "tokenizer/tokenizer.json", "image": None}[name]
        if file:
            (folder / "tokenizer.json").write_bytes((tmp_path / file).read_bytes())
        else:
            (folder / "preprocessor_config.json").write_text(
                '{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}'
            )
    _, folder, model = _made(tmp_path, towers)
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["image", "text"]
    for name in towers:
        for key, value in source.encoders[name].state_dict().items():
            assert torch.equal(model.encoders[name].state_dict()[key], value), key


def test_a_saved_folder_opens_with_the_auto_class_and_gives_the_same(tmp_path: Path) -> None:
    _, _, model = _made(tmp_path, _towers(tmp_path), {"kind": "gated", "width": 16})
    model.eval().save_pretrained(tmp_path / "saved")
    opened = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved").eval()
    with torch.inference_mode():
        assert torch.allclose(opened(**_inputs()).logits, model(**_inputs()).logits, atol=1e-6)


def test_a_tower_alone_is_its_mean_and_a_linear_layer(tmp_path: Path) -> None:
    config = ModelConfig(family="audio", size=SIZE)  # type: ignore[arg-type]
    storage = Storage(str(tmp_path))
    model: Any = build(config, storage.fetch(stage_model(config, storage, shapes=SHAPES).rel), LABELS).eval()
    inputs = {name: tensor for name, tensor in _inputs().items() if name in ("input_values", "audio_mask")}
    pooled = model.encoders["audio"](inputs["input_values"], inputs["audio_mask"]).pooler_output
    assert torch.allclose(model(**inputs).logits, model.classifier(pooled), atol=1e-6)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"towers": {"text": {"family": "resnet"}}}, "towers.text: family resnet reads image"),
        ({"towers": {"image": {}}}, "towers.image: give path"),
        ({"towers": {"image": {"family": "vit"}}, "path": "p"}, "path belongs to a model of one encoder"),
        ({"path": "p", "fusion": {"kind": "gated"}}, "fusion joins towers"),
        ({"towers": {"image": {"family": "vit"}}, "fusion": {}}, "fusion joins towers"),
    ],
)
def test_what_does_not_go_together_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ModelConfig.model_validate(values)
