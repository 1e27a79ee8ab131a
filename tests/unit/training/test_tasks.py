"""Fits of other tasks than classification: same code, other targets. One process, bare torch."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from models.config import GROUPED, PAIRED, ModelConfig
from models.config.origins import SizeConfig
from models.families import new_config
from orchestration.storage import Storage
from orchestration.training import checkpoint, loop
from orchestration.training.config import TrainConfig
from orchestration.training.job import TrainJob
from tests.tiny import VOCABULARY, make_store

FAMILIES = {"masked_lm": "bert", "causal_lm": "gpt2"}
EVERY = {**FAMILIES, "denoising": "t5", "sentence_order": "bert", "next_sentence": "bert"}
MARKS = 10


def _job(root: Path, task: str, *, run: str, **train: Any) -> TrainJob:
    storage = Storage(str(root))
    rel = f"weights/{task}"
    if storage.manifest(rel) is None:
        aside = storage.staging()
        size = SizeConfig(layers=2, width=32, heads=2)
        config = new_config(EVERY[task], size, vocab=VOCABULARY, positions=40, special={"pad": 0})
        marks = {f"[unused{i}]": 3 + i for i in range(MARKS)}
        words = {f"w{i}": i for i in range(3 + MARKS, VOCABULARY)}
        vocab = {"[PAD]": 0, "[CLS]": 1, "[MASK]": 2, **marks, **words}
        special = [{"id": i, "content": name, "special": True} for name, i in list(vocab.items())[:3]]
        described = {"model": {"type": "WordPiece", "vocab": vocab}, "added_tokens": special}
        (aside / "config.json").write_text(json.dumps(config))
        (aside / "tokenizer.json").write_text(json.dumps(described))
        storage.commit(rel, aside, {})
    store = f"stores/{task}"
    if storage.manifest(store) is None:
        make_store(storage, rel=store, labels=(), pairs=task in PAIRED)
    chosen = {"epochs": 2, "batch": 12, "report_every": 1, "optimizer": {"lr": 2e-3}, **train}
    model = ModelConfig.model_validate(
        {"family": EVERY[task], "size": {"layers": 2, "width": 32, "heads": 2}, "tokenizer": "t", "task": task}
        | {"dropout": 0.0, **({"contrast": {"group": 4}} if task in GROUPED else {})}
    )
    return TrainJob(
        train=TrainConfig.model_validate(chosen, strict=True),
        model=model,
        labels=(),
        seed=7,
        storage_url=str(root),
        weights_rel=rel,
        store_rel=store,
        run_rel=f"runs/{run}",
        threads=1,
    )


def _run(job: TrainJob, **more: Any) -> Any:
    return loop.run(job, report=lambda event: None, **more)


@pytest.mark.parametrize("task", FAMILIES)
def test_a_language_model_from_scratch_learns_and_says_how_well(task: str, tmp_path: Path) -> None:
    result = _run(_job(tmp_path, task, run="one", epochs=6))
    first, last = result.validations[0], result.validations[-1]
    assert last["loss"] < first["loss"] < 1.2 * 4.16  # log of 64, what guessing costs
    assert last["perplexity"] == pytest.approx(torch.tensor(last["loss"]).exp().item(), rel=1e-5)
    assert result.metric == "loss"
    assert result.best_value == min(event["loss"] for event in result.validations)
    assert last["rows"] == 24


@pytest.mark.parametrize("task", [task for task in EVERY if task not in GROUPED])  # there a micro-batch is a group
def test_accumulation_does_not_change_the_mean_over_tokens(task: str, tmp_path: Path) -> None:
    """Micro-batches have unequal numbers of targets, so a mean of their means would be another number."""
    whole = _run(_job(tmp_path, task, run="whole"))
    parts = _run(_job(tmp_path, task, run="parts", micro_batch=5))
    by_tokens = _run(_job(tmp_path, task, run="tokens", micro_tokens=60))
    assert parts.losses == pytest.approx(whole.losses, rel=2e-5)
    assert by_tokens.losses == pytest.approx(whole.losses, rel=2e-5)


@pytest.mark.parametrize("task", EVERY)
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(task: str, tmp_path: Path) -> None:
    whole = _job(tmp_path, task, run="whole", report_every=1)
    unbroken = _run(whole)
    broken = dataclasses.replace(whole, run_rel="runs/broken")
    asked = iter(range(10**6))
    assert _run(broken, stop=lambda: next(asked) == 5).ended == "stopped"
    resumed = _run(broken)
    assert resumed.losses == unbroken.losses
    storage = Storage(str(tmp_path))
    one, other = (checkpoint.open(storage, result.last_checkpoint).weights() for result in (unbroken, resumed))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_masks_change_from_epoch_to_epoch_and_not_from_run_to_run(tmp_path: Path) -> None:
    job = _job(tmp_path, "masked_lm", run="one", optimizer={"lr": 1e-12}, epochs=2, batch=90)
    one, other = _run(job).losses, _run(dataclasses.replace(job, run_rel="runs/two")).losses
    assert one == other
    assert abs(one[0] - one[1]) > 1e-4  # same rows and weights, other masks


def test_a_frozen_bottom_is_not_stored_where_masks_are_drawn_anew(tmp_path: Path) -> None:
    from orchestration.errors import UserError

    job = _job(tmp_path, "masked_lm", run="one", layers={"freeze": 2}, trunk={"use": "on"})
    with pytest.raises(UserError, match=r"train\.trunk\.use=on: the model's task hides other tokens"):
        _run(job)
