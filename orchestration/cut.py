"""A pretrained model with some of its layers alone: where a student begins (Sanh et al. 2019, "DistilBERT", takes every other one). Takes the
files of a model folder; writes those of the smaller one. Called by `weights`."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.families import TRUNKS, cut_config


def write(files: Sequence[Path], layers: list[int], folder: Path) -> list[Path]:
    """Layer i of the new model is `layers[i]` of the old one. Raises ModelError for a family that cannot be cut and a layer that is not
    there."""
    from safetensors.torch import load_file, save_file

    (described,) = (file for file in files if file.name == "config.json")
    whole = json.loads(described.read_text(encoding="utf-8"))
    config = cut_config(whole, layers)
    layer = re.compile(rf"(?:^|\.){re.escape(TRUNKS[str(whole['model_type'])][1])}\.(\d+)\.")
    kept: dict[str, Any] = {}
    for file in (file for file in files if file.suffix == ".safetensors"):
        for name, tensor in load_file(str(file)).items():
            found = layer.search(name)
            if found is None:
                kept[name] = tensor
                continue
            for new in (i for i, old in enumerate(layers) if old == int(found[1])):  # a layer may be taken twice
                kept[f"{name[: found.start(1)]}{new}{name[found.end(1) :]}"] = tensor.clone()
    save_file(kept, str(folder / "model.safetensors"), metadata={"format": "pt"})
    for file in files:
        if "safetensors" not in file.name:
            shutil.copyfile(file, folder / file.name)
    (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return sorted(folder.iterdir())
