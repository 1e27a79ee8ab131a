"""What a model is trained to do: the complete list of tasks on one screen. A task says which head a model gets, what it is fed and
asked for, its loss as (sum, count) and its scores. The loop, validation, evaluation and the package know tasks only by the
interface in `base`. Light: names and classes, nothing of torch until a task is made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.config import ModelConfig
    from models.tasks.base import Task

# task -> (transformers' Auto class, module, class in it)
TASKS = {
    "classification": ("AutoModelForSequenceClassification", "rows", "Classification"),
    "heads": ("AutoModelForSequenceClassification", "heads", "Heads"),
    "regression": ("AutoModelForSequenceClassification", "rows", "Regression"),
    "tagging": ("AutoModelForTokenClassification", "tagging", "Tagging"),
    "spans": ("AutoModelForQuestionAnswering", "spans", "Spans"),
    "masked_lm": ("AutoModelForMaskedLM", "language", "MaskedLM"),
    "sentence_order": ("AutoModelForPreTraining", "order", "SentenceOrder"),
    "next_sentence": ("AutoModelForPreTraining", "order", "NextSentence"),
    "causal_lm": ("AutoModelForCausalLM", "language", "CausalLM"),
    "contrastive": ("AutoModel", "contrastive", "Contrastive"),
    "seq2seq": ("AutoModelForSeq2SeqLM", "seq2seq", "Seq2Seq"),
    "denoising": ("AutoModelForSeq2SeqLM", "denoising", "Denoising"),
    "captioning": ("AutoModelForImageTextToText", "captioning", "Captioning"),
    "matching": ("AutoModelForSequenceClassification", "matching", "Matching"),
}
IMAGE_CLASS = (
    "AutoModelForImageClassification"  # of pictures alone; our own models of other media stand beside those of text
)


def auto_class(task: str, reads: tuple[str, ...] = ("text",)) -> str:
    """The name of the transformers class that makes the model. `reads`: modalities."""
    return IMAGE_CLASS if reads == ("image",) else TASKS[task][0]


def kind(task: str) -> type[Task]:
    """The task's class. Imports torch."""
    import importlib

    _, module, name = TASKS[task]
    found: type[Task] = getattr(importlib.import_module(f"models.tasks.{module}"), name)
    return found


def make(config: ModelConfig, labels: Sequence[str], folder: Path) -> Task:
    """`labels`: classes or tags, in the order of the model's outputs; `folder`: the model's, for its tokenizer. Raises ModelError where
    the tokenizer lacks what the task needs."""
    return kind(config.task)(config, list(labels), Path(folder))
