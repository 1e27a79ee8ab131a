"""What a fit needs of a spec beyond what `prepare` does: something to learn from, and rows that the model can read. Takes a JobSpec; gives
nothing or one SpecError. Called by the verbs that train."""

from __future__ import annotations

from jobs import informing, reading
from jobs.checks import model_config
from jobs.spec import JobSpec
from models.config import LANGUAGE, PAIRED
from orchestration.errors import SpecError

# Keys of a source that a row's targets come from -> the tasks that learn from them. `tags` and `value` may stand beside any task.
TAUGHT: dict[str, tuple[str, ...]] = {
    "pair": ("classification", "regression", "spans", *PAIRED),
    "target": ("seq2seq",),
    "span": ("spans",),
    "labels": ("heads",),
}
NEEDS = {"spans": ("pair", "span"), "seq2seq": ("target",), **{task: ("pair",) for task in PAIRED}}
DISTILLED = ("classification", "heads", "regression", "tagging", "causal_lm")


def _or_leave(tasks: tuple[str, ...]) -> str:
    return f"set model.task to {' or '.join(tasks)}, or leave it out" if tasks else "leave it out"


def check_fit(spec: JobSpec) -> None:
    """Raises SpecError with one line for each thing that is missing."""
    wrong, task, data = [], spec.model.task, spec.data
    if task == "classification" and not data.labels:
        wrong.append("data.labels: model.task=classification needs classes; name them, and a label for each source")
    if task == "tagging" and not data.tags:
        wrong.append(
            "data.tags: model.task=tagging needs the names of the tags; name them, and `tags` (a column) for each source"
        )
    if task == "heads" and not data.heads:
        wrong.append(
            "data.heads: model.task=heads needs the classes of each head; name them, and `labels` for the sources"
        )
    if spec.train.distill is not None and task not in DISTILLED:
        wrong.append(f"train.distill: model.task={task} cannot be taught yet; allowed: {', '.join(DISTILLED)}")
    for name in spec.model.head_weights:
        if name not in data.heads:
            wrong.append(f"model.head_weights.{name}: data.heads has no such head; allowed: {', '.join(data.heads)}")
    for i, source in enumerate(data.sources):
        for key, tasks in TAUGHT.items():
            if getattr(source, key) is not None and task not in tasks:
                wrong.append(f"data.sources[{i}].{key}: model.task={task} does not learn from it; {_or_leave(tasks)}")
        for key in NEEDS.get(task, ()):
            if getattr(source, key) is None:
                wrong.append(
                    f"data.sources[{i}].{key}: model.task={task} learns from it; name the column that holds it"
                )
        for key in ("pair",) if any(other.pair is not None for other in data.sources) else ():
            if getattr(source, key) is None:
                wrong.append(
                    f"data.sources[{i}].{key}: other sources have it; a model reads one text or two, so give it to each or none"
                )
        if task == "regression" and source.value is None:
            wrong.append(
                f"data.sources[{i}].value: model.task=regression learns numbers; name the column that holds them"
            )
    if data.tokenize.pack and task not in LANGUAGE:
        wrong.append(f"data.tokenize.pack: model.task={task} has an answer for each row; set pack: false")
    if task == "masked_lm" and data.tokenize.fim is not None:
        wrong.append("data.tokenize.fim: it is for models that read from the left (causal_lm); leave it out")
    reading.rows(spec, model_config(spec, []), wrong)
    informing.facts(spec, wrong)
    if wrong:
        raise SpecError("\n".join(f"spec {spec.name!r}: {line}" for line in wrong))
