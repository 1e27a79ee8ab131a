"""The model inside a package: how its weights lie there. Takes the trained model and the `model` part of the spec; writes config.json and

    model.safetensors      of a plain model, LoRA merged into it: opens with transformers' Auto classes
    model.safetensors      of a model with `share_layers`: each tensor once; transformers alone would draw the other layers at random
    model.safetensors      of a model with another adapter, or a memory that it attends to: the pretrained weights and those, which `read` puts together
    memory.npz             of a language model with a memory: what follows where inside the facts
    adapter.safetensors    of `model.adapter.alone`: adapter and head; base.json names the pretrained weights in storage, with their sha256
    members/0 ...          of an ensemble (`ensemble` writes it): folders of this kind, whose answers are averaged

and opens it again. Called by `package`. Knows neither tokenizer nor probe."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.config import ModelConfig
from orchestration.errors import DamagedError, UserError
from orchestration.storage import Storage, check_file, describe

WHOLE, ALONE, BASE, MEMBERS = "model.safetensors", "adapter.safetensors", "base.json", "members"


def write(folder: Path, model: Any, config: ModelConfig, *, pretrained: Path, weights_rel: str) -> None:
    """What `save_pretrained` writes, without it: where accelerate is installed it imports DeepSpeed, 4 s, to unwrap nothing."""
    from safetensors.torch import save_file

    from models import adapters

    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(str(folder))  # holds the labels
    if config.adapter is not None and config.adapter.merges:
        _save(save_file, adapters.merged(model), folder / WHOLE)
    elif config.adapter is not None and config.adapter.alone:
        own = adapters.trained(model) or set()
        _save(save_file, {name: value for name, value in _state(model).items() if name in own}, folder / ALONE)
        files = sorted(pretrained.glob("*.safetensors"))
        base = {"weights": weights_rel, "files": {file.name: describe(file) for file in files}}
        (folder / BASE).write_text(json.dumps(base, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    else:  # a tied tensor by its first name, the encoder's: another head can go on from there
        _save(save_file, _state(model), folder / WHOLE)


def read(folder: Path, config: ModelConfig, labels: list[str], *, base: Path | None, verify: bool) -> Any:
    """The model, fp32, eval mode. `config`: of task.json. `base`: the pretrained folder of a package without; None: looked for beside it.
    Raises DamagedError where the base differs from what base.json says, UserError where it is not there."""
    import transformers

    from models import pooling, recall, sharing
    from models.building import build, register
    from models.tasks import auto_class
    from models.text import quiet_transformers

    register(config)
    with quiet_transformers():
        if (folder / MEMBERS).is_dir():
            model = _ensemble(folder, config.task, labels)
        elif config.adapter is None and not config.attends:
            safe = {"local_files_only": True, "use_safetensors": True, "trust_remote_code": False}
            model = getattr(transformers, auto_class(config.task, config.reads)).from_pretrained(str(folder), **safe)
            sharing.tie(model)
            if config.pooling == "mean":
                pooling.attach(model)
            if config.recalls:
                recall.attach(model, recall.read(folder))
        elif (folder / BASE).is_file():
            model = build(config, _base(folder, base, verify=verify), labels)
            _take(model, folder / ALONE)
        else:
            model = build(config, folder, labels)
            _take(model, folder / WHOLE)
    return model.float().eval()


def remember(folder: Path, model: Any, config: ModelConfig, held: Sequence[Sequence[int]]) -> None:
    """Writes what a model that writes makes of the folder's facts, and gives it that memory. `held`: validation rows, by which it is weighed."""
    from models import recall
    from orchestration.data import knowledge
    from orchestration.data.config import KnowledgeConfig
    from orchestration.data.untokenized import tokenizer_of

    settings = read_json(folder, "preprocessing.json")
    tokenizer = tokenizer_of(folder, settings["max_length"])
    known = knowledge.load(folder, KnowledgeConfig(path=knowledge.BASE, **settings["knowledge"]))
    assert config.memory is not None
    more = {"neighbours": config.memory.neighbours, "pad_id": tokenizer.pad_id}
    recall.write(recall.memorize(model, tokenizer.encode(known.texts), held, **more), folder)
    recall.attach(model, recall.read(folder))  # as it was rounded


def told(folder: Path) -> ModelConfig:
    """The `model` part of the spec as far as task.json has it. Raises DamagedError where the file cannot be read, UserError where it is not
    ours."""
    found = read_json(folder, "task.json")
    try:
        return ModelConfig(path=str(folder), **found)
    except (TypeError, ValueError):
        raise UserError(f"{folder / 'task.json'}: found {found!r}; expected {{'task': ..., 'masking': ...}}") from None


def read_json(folder: Path, name: str) -> Any:
    """One JSON file of a package folder. Raises DamagedError naming it."""
    try:
        return json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DamagedError(f"{folder / name}: missing; `eagleray export` writes a model package") from None
    except ValueError as error:
        raise DamagedError(f"{folder / name}: not valid JSON ({error})") from None


def _ensemble(folder: Path, task: str, labels: list[str]) -> Any:
    from models.ensemble import Ensemble

    parts = sorted((folder / MEMBERS).iterdir(), key=lambda part: int(part.name))
    return Ensemble([read(part, told(part), labels, base=None, verify=False) for part in parts], task, labels)


def fetch_base(storage: Storage, folder: Path) -> Path | None:
    """The pretrained folder that a package rests on; None for one that is whole."""
    return storage.fetch(read_json(folder, BASE)["weights"]) if (folder / BASE).is_file() else None


def _base(folder: Path, base: Path | None, *, verify: bool) -> Path:
    described = read_json(folder, BASE)
    found = base or folder.parent.parent / described["weights"]  # both lie in one storage
    if not found.is_dir():
        raise UserError(
            f"package {folder} holds an adapter alone, and its base {described['weights']} is not beside it in storage; copy it there too"
        )
    for name, wanted in described["files"].items() if verify else ():
        check_file(found / name, wanted, shown=str(found / name))
    return found


def _state(model: Any) -> dict[str, Any]:
    from models.state import named_state

    return {name: tensor.detach() for name, tensor in named_state(model).items()}


def _save(save_file: Any, tensors: dict[str, Any], path: Path) -> None:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, str(path), metadata={"format": "pt"})


def _take(model: Any, path: Path) -> None:
    """All tensors of the file into the model. Raises UserError unless they are just the model's, or its adapter and head."""
    import torch
    from safetensors.torch import load_file

    from models import adapters

    own, given = _state(model), load_file(str(path))
    wanted = set(own) if path.name == WHOLE else adapters.trained(model) or set()
    if wrong := sorted(wanted ^ set(given)):
        raise UserError(f"{path}: its tensors are of another model; the first that differs is {wrong[0]}")
    with torch.no_grad():
        for name, tensor in given.items():
            own[name].copy_(tensor)
