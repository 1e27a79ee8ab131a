"""What facts need: `data.knowledge` of the task, `model.memory` of the facts. Takes a spec and the list of what is wrong with it, and adds a line for
each thing that a fit could not do. Called by `jobs.checks`; reads nothing."""

from __future__ import annotations

from jobs.spec import JobSpec

INFORMED = ("classification", "heads", "regression", "masked_lm", "seq2seq")


def facts(spec: JobSpec, wrong: list[str]) -> None:
    data, memory, task = spec.data, spec.model.memory, spec.model.task
    silent = data.knowledge is not None and data.knowledge.most == 0 and spec.model.recalls
    if data.knowledge is not None and not silent and (task not in INFORMED or "text" not in spec.model.reads):
        wrong.append(
            f"data.knowledge: model.task={task} is not told facts; allowed with text: {', '.join(INFORMED)}; most: 0 beside model.memory of causal_lm"
        )
    if memory is not None and data.knowledge is None:
        wrong.append(
            "model.memory: it holds the triples of data.knowledge; give their path there (most: 0 tells none in words)"
        )
    dealt = bool(data.split.validation or data.split.folds) and any(source.split is None for source in data.sources)
    if spec.model.recalls and not dealt and not any(source.split == "validation" for source in data.sources):
        wrong.append(
            "model.memory: validation rows say how much it is worth; set data.split.validation above 0, or the split of a source"
        )
    if spec.model.attends and spec.train.distill is not None:
        wrong.append("train.distill: a student with model.memory cannot be taught yet; leave one of the two out")
    if spec.model.attends and spec.train.layers.freeze and spec.train.trunk.use != "off":
        wrong.append(
            "train.trunk.use: model.memory looks at rows as a whole, which stored outputs are not; set it to off"
        )
    if data.knowledge is not None and data.knowledge.most == 0 and memory is None:
        wrong.append("data.knowledge.most=0 tells rows nothing; raise it, or give the model a memory (model.memory)")
