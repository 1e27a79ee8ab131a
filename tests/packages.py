"""Tiny real packages for tests: MiniLM cut to its two lowest layers, with heads drawn from a seed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestration.data.config import CleanConfig
from orchestration.storage import MANIFEST, Storage

LABELS = ["negative", "positive"]
TAGS = ["NOUN", "VERB", "X"]
HEADS = ["mood:negative", "mood:positive", "topic:film", "topic:food", "topic:music"]
PREPROCESSING = {"clean": CleanConfig().model_dump(mode="json"), "max_length": 48}
LAYERS = 2


def cut_encoder(minilm: Path, storage: Storage) -> str:
    """The encoder's two lowest layers as a staged pretrained folder; gives its name in storage."""
    from safetensors.torch import load_file, save_file

    aside = storage.staging()
    for path in sorted(minilm.iterdir()):
        if path.is_file() and path.suffix in (".json", ".txt") and path.name != MANIFEST:
            shutil.copyfile(path, aside / path.name)
    config = json.loads((minilm / "config.json").read_text())
    (aside / "config.json").write_text(json.dumps({**config, "num_hidden_layers": LAYERS}))
    tensors = load_file(str(minilm / "model.safetensors"))
    kept = {name: tensor for name, tensor in tensors.items() if ".layer." not in name or _layer(name) < LAYERS}
    save_file(kept, str(aside / "model.safetensors"), metadata={"format": "pt"})
    storage.commit("weights/cut", aside, {})
    return "weights/cut"


def _layer(name: str) -> int:
    return int(name.split(".layer.")[1].split(".")[0])


def trained_tensors(storage: Storage, weights_rel: str, seed: int) -> dict[str, Any]:
    """What a checkpoint gives: all named tensors, the head drawn from `seed` so that seeds give other logits."""
    import torch

    from models.config import ModelConfig
    from models.text import build

    folder = storage.fetch(weights_rel)
    model = build(ModelConfig(path=str(folder)), folder, LABELS)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        model.classifier.weight.copy_(torch.randn(model.classifier.weight.shape, generator=generator))
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def task_package(
    task: str,
    minilm: Path,
    storage: Storage,
    *,
    seed: int = 3,
    family: str = "gpt2",
    pair: bool = False,
    facts: Sequence[tuple[str, str, str]] = (),
) -> str:
    """A package of any task: the cut encoder, or a `family` of two narrow layers with MiniLM's tokenizer. Its weights are drawn wide, so that
    answers differ. `pair`: of two texts a row. `facts`: triples of the memory of a model that writes. Gives its name in storage."""
    import torch

    from models.config import PAIRED, WRITERS, ModelConfig
    from models.config.origins import SizeConfig
    from models.scratch import Shapes
    from models.state import named_state
    from models.text import build
    from orchestration import package
    from orchestration.weights import stage_model

    scratch = task in ("causal_lm", *WRITERS)
    if scratch:
        size = SizeConfig(layers=2, width=32, heads=2)
        made_as = family if task == "causal_lm" or family != "gpt2" else "t5"
        memory: Any = {"neighbours": 16} if facts else None
        config = ModelConfig(family=made_as, size=size, tokenizer=str(minilm), task=task, memory=memory)  # type: ignore[arg-type]
        weights_rel = stage_model(config, storage, shapes=Shapes(positions=PREPROCESSING["max_length"])).rel
    else:
        weights_rel = "weights/cut" if storage.manifest("weights/cut") else cut_encoder(minilm, storage)
        config = ModelConfig(path=str(storage.fetch(weights_rel)), task=task)  # type: ignore[arg-type]
    labels = {"classification": LABELS, "tagging": TAGS, "heads": HEADS}.get(task, [])
    model = build(config, storage.fetch(weights_rel), labels, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and (
                scratch or name.startswith(("classifier", "qa_outputs", "cls.seq_relationship"))
            ):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    told, more = _remembered(facts, minilm, storage)
    made = package.export(
        storage,
        tensors={name: tensor.detach().clone() for name, tensor in named_state(model).items()},
        weights_rel=weights_rel,
        labels=labels,
        preprocessing={**PREPROCESSING, "pair": True} if pair or task in ("spans", *PAIRED) else PREPROCESSING | told,
        **more,
        lineage={"task": task},
        model=config,
    )
    return made.rel


def _remembered(
    facts: Sequence[tuple[str, str, str]], minilm: Path, storage: Storage
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of preprocessing.json, and for `export`: the facts, and themselves as the rows by which the memory is weighed."""
    from orchestration.data import knowledge
    from orchestration.data.config import KnowledgeConfig
    from orchestration.data.tokenize import Tokenizer

    if not facts:
        return {}, {}
    path = Path(storage.path("facts.jsonl"))
    rows = [dict(zip(("head", "relation", "tail"), fact, strict=True)) for fact in facts]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config = KnowledgeConfig(path=str(path), most=0)
    held = Tokenizer(minilm, PREPROCESSING["max_length"]).encode(knowledge.known(config, storage).texts)
    return {"knowledge": config.settings}, {"knowledge_rel": knowledge.stage(config, storage), "held": held}


def media_package(
    config: Any,
    storage: Storage,
    *,
    labels: list[str] | None = None,
    seed: int = 3,
    wide: float | None = None,
    **parts: Any,
) -> str:
    """A package of a model that reads media, from its drawn weights. `parts`: the spec's `image`, `audio`, `series` where they matter. `wide`:
    deviation of the text tower's weights, so that answers differ."""
    import torch

    from models.building import build
    from models.scratch import Shapes
    from models.state import named_state
    from orchestration import package
    from orchestration.data.config import DataConfig
    from orchestration.decoding import settings
    from orchestration.weights import stage_model

    data = DataConfig.model_validate({"sources": [{"name": "a", "path": "a"}], **parts})
    shapes = Shapes(image=data.image.size, rate=data.audio.rate)
    weights_rel = stage_model(config, storage, shapes=shapes).rel
    named = ["cat", "dog", "owl"] if labels is None else labels
    model = build(config, storage.fetch(weights_rel), named, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters() if wide else ():
            if parameter.ndim > 1 and name.startswith("encoders.text"):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * wide)
    media = [kind for kind in config.reads if kind != "text"]
    made = package.export(
        storage,
        tensors={name: tensor.detach().clone() for name, tensor in named_state(model).items()},
        weights_rel=weights_rel,
        labels=named,
        preprocessing={**PREPROCESSING, **settings(media, data.model_dump(mode="json"))},
        lineage={"task": config.task},
        model=config,
    )
    return made.rel
