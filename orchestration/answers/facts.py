"""What a package's files alone tell of how it is asked: its route, what it reads, its mask, how much it can write. Takes the folder; imports
no torch, so router and driver read it too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from models.config import CAPTIONED, WRITERS
from orchestration.answers.kinds import KINDS, Kind, Values


def example(folder: Path) -> tuple[Kind, Any]:
    """How a package is asked, and a text, or two, to ask it."""
    task = task_of(folder)
    text = KINDS[task].example
    if reads_pairs(folder):
        return KINDS[task], (text, KINDS[task].beside)
    return KINDS[task], text.replace("[MASK]", mask_token(folder)) if task == "masked_lm" else text


def reads_of(folder: Path) -> tuple[str, ...]:
    """What the package's model reads of a row."""
    return tuple(json.loads((folder / "task.json").read_text(encoding="utf-8")).get("modalities") or ("text",))


def task_of(folder: Path) -> str:
    return str(json.loads((folder / "task.json").read_text(encoding="utf-8"))["task"])


def facts(folder: Path, max_new_tokens: int = 2**16) -> Values:
    """What the router must know of a package to check a request, from its files alone. `max_new_tokens`: the endpoint's bound."""
    task = task_of(folder)
    if task == "masked_lm":
        return {"mask_token": mask_token(folder)}
    if KINDS[task].second:
        return {"pair": True} if reads_pairs(folder) else {}
    if task in ("causal_lm", *WRITERS):
        room = positions(folder)
        return {"max_new_tokens": min(max_new_tokens, room - 2) if room else max_new_tokens}
    if task in CAPTIONED:  # the other half of the positions is for the picture, and for what the text begins with
        room = positions(folder)
        return {"max_new_tokens": min(max_new_tokens, room // 2) if room else max_new_tokens}
    return {}


def reads_pairs(folder: Path) -> bool:
    return bool(json.loads((folder / "preprocessing.json").read_text(encoding="utf-8")).get("pair"))


def positions(folder: Path) -> int | None:
    """Most tokens that the model can see at once; None where its positions have no end."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config = (config.get("towers") or {}).get("text", config)
    found = next((config[key] for key in ("max_position_embeddings", "n_positions") if key in config), None)
    return int(found) if found else None


def mask_token(folder: Path) -> str:
    from tokenizers import Tokenizer

    from models import tokens

    number = tokens.read(folder).need("mask", "task masked_lm")
    return str(Tokenizer.from_file(str(folder / "tokenizer.json")).id_to_token(number))


def hole(folder: Path) -> str:
    """What stands in a text for what the package is to find: the mask token, or of a model that learned with marks its first one."""
    from tokenizers import Tokenizer

    from models import tokens

    told = json.loads((folder / "task.json").read_text(encoding="utf-8"))
    if told["task"] != "denoising" or (told.get("denoising") or {}).get("style") == "infilling":
        return mask_token(folder)
    return str(Tokenizer.from_file(str(folder / "tokenizer.json")).id_to_token(int(tokens.read(folder).marks[0])))
