"""Does the spec's model read what the rows have, in the form they have it? Takes a JobSpec, or an encoder's config.json; adds a line for each thing that
is wrong. Called by `jobs.checks`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jobs.spec import JobSpec
from models.config import ADDITIVE, BESIDE, CAPTIONED, GROUPED, ContrastConfig
from models.scratch import TOWERS, Shapes, encoder_of, reads_of

PLACED = ("vit", "clip_vision_model")  # families of pictures whose patches have places of their own


def fits(
    config: dict[str, Any], key: str, path: str, reads: Sequence[str], shapes: Shapes, wrong: list[str]
) -> dict[str, Any] | None:
    """A pretrained encoder reads what the spec says, in the form that the rows have."""
    config = encoder_of(config, reads[0]) if key != "model" else config
    found = reads_of(config)
    if key != "model" and config.get("model_type") == TOWERS:
        wrong.append(
            f"{key}.path={path}: it is a whole model of Eagleray's and no encoder; give it as model.path, with model.modalities"
        )
        return None
    if found and found != tuple(reads):
        wrong.append(
            f"{key}.path={path}: its model ({config.get('model_type')}) reads {', '.join(found)}, and the spec says {', '.join(reads)};"
            + (f" set model.modalities: [{', '.join(found)}]" if key == "model" else "")
        )
        return None
    size = config.get("image_size")
    if config.get("model_type") in PLACED and isinstance(size, int) and size != shapes.image:
        wrong.append(f"data.image.size={shapes.image}, but {path} has places for pictures of {size}; set it to {size}")
    for name, there, asked in (
        ("rate", config.get("rate"), shapes.rate),
        ("columns", config.get("columns"), shapes.columns),
    ):
        if found and there is not None and there != asked:
            part = "data.audio.rate" if name == "rate" else "the number of columns in data.sources[0].series"
            wrong.append(f"{part} is {asked}, but {path} was made for {there}")
    return config


def pairs(spec: JobSpec, config: dict[str, Any], wrong: list[str]) -> None:
    """A pretrained model of several towers can tell whether they belong together."""
    fusion = (config.get("fusion") or {}).get("kind", "concat")
    if spec.model.task == "matching" and config.get("model_type") == "eagleray_towers" and fusion in ADDITIVE:
        wrong.append(
            f"model.path={spec.model.path}: its fusion {fusion} adds what each tower says alone, which tells no pair from another; take a model with"
            " another fusion, or name model.towers and fusion.kind: product"
        )


def rows(spec: JobSpec, config: dict[str, Any] | None, wrong: list[str]) -> None:
    """Each row has what the model reads; of several modalities some source has each. `config`: of model.path, where it is at hand."""
    reads = spec.model.reads
    for i, source in enumerate(spec.data.sources):
        there = {"text": source.text is not None, "series": source.series is not None}
        there |= {kind: kind in source.media for kind in ("image", "audio")}
        missing = [name for name in reads if not there[name]]
        if "text" in missing and len(reads) > 1 and spec.model.task in (*CAPTIONED, *BESIDE):
            wrong.append(f"data.sources[{i}].text: null, but model.task={spec.model.task} learns from it")
        if reads == ("text",) and missing:
            wrong.append(f"data.sources[{i}].text: null, but model.task={spec.model.task} reads text")
        elif missing and len(reads) == 1:
            wrong.append(f"data.sources[{i}].{missing[0]}: the model reads {missing[0]}; name the column that holds it")
        elif len(missing) == len(reads):
            wrong.append(f"data.sources[{i}]: it has nothing of what the model reads ({', '.join(reads)})")
    if spec.model.task in GROUPED:
        _groups(spec, wrong)
    unknown = spec.model.path is not None and config is None  # it lies elsewhere
    towers = spec.model.towers or (config or {}).get("model_type") == TOWERS
    if "image" in reads and spec.data.image.frames != 1 and not (towers or unknown):
        wrong.append(
            f"data.image.frames={spec.data.image.frames}: the model reads one picture a row; set it to 1, or name the encoder in model.towers.image,"
            " which reads each frame"
        )
    if reads != ("text",) and spec.train.micro_tokens is not None:
        wrong.append(
            "train.micro_tokens counts tokens, and rows with media cost more than theirs; set train.micro_batch"
        )


def _groups(spec: JobSpec, wrong: list[str]) -> None:
    """Whole groups in a batch, and one for each worker."""
    group, batch, workers = (spec.model.contrast or ContrastConfig()).group, spec.train.batch, spec.cluster.most_workers
    if batch % group or batch < group * workers:
        wrong.append(
            f"train.batch={batch}: rows have to do with each other in groups of model.contrast.group={group}, one or more for each of {workers} workers; allowed:"
            f" multiples of {group} from {group * workers}"
        )
    train = spec.train
    set_in_vain = {
        "train.micro_batch": train.micro_batch is not None,
        "train.micro_tokens": train.micro_tokens is not None,
        "train.failures.out_of_memory": train.failures.out_of_memory == "smaller_micro_batch",
    }
    for key in (key for key, there in set_in_vain.items() if there):
        wrong.append(
            f"{key}: a micro-batch of model.task={spec.model.task} is one group, whatever it says; leave it out and set model.contrast.group"
        )
