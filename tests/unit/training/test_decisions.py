"""What the driver does about each kind of failure: a table, without Ray and without a clock."""

from __future__ import annotations

import re
from typing import Any

import pytest

from models.config import ModelConfig
from orchestration.training.config import TrainConfig
from orchestration.training.decisions import Again, Stop, changed, decide
from orchestration.training.job import TrainJob

NAN = {"kind": "not_finite", "text": "step 12: the loss is nan; lower the rate", "step": 12, "batch": 3, "rows": ["0a"]}
FULL = {"kind": "out_of_memory", "text": "step 7: too little memory; lower it", "micro_batch": 6, "micro_tokens": None}


def job_of(*, lr_scale: float = 1.0, world: int = 2, max_failures: int = 3, **train: Any) -> TrainJob:
    failures = {key: train.pop(key) for key in ("not_finite", "attempts", "out_of_memory") if key in train}
    spec = {"batch": 12, "optimizer": {"lr": 2e-3}, "max_failures": max_failures, "failures": failures, **train}
    return TrainJob(
        train=TrainConfig.model_validate(spec),
        model=ModelConfig(path="tiny"),
        labels=("no", "yes"),
        seed=7,
        storage_url="/nowhere",
        weights_rel="weights/tiny",
        store_rel="stores/tiny",
        run_rel="runs/one",
        world=world,
        lr_scale=lr_scale,
    )


ROLL, SMALLER = {"not_finite": "roll_back"}, {"out_of_memory": "smaller_micro_batch"}
TABLE: dict[str, tuple[list[dict[str, Any]], dict[str, Any], dict[str, Any] | str]] = {
    # what happened, the spec, then the changes of Again, or words of Stop
    "a user's error": ([{"kind": "user", "text": "no such label"}], {}, r"^no such label$"),
    "a newer attempt": ([{"kind": "stale_writer", "text": "attempt 2 began"}], {}, r"^attempt 2 began$"),
    "no room on the disk": ([{"kind": "disk_full", "text": "9 bytes free"}], {}, r"^9 bytes free; .*--resume one$"),
    "no room in the cluster": ([{"kind": "no_room", "text": "no room"}], {}, r"^no room; .*--resume one$"),
    "restarts used up": ([{"kind": "restarts", "text": "worker 1: gone"}], {}, r"after train\.max_failures=3 restarts: worker 1: gone; .*--resume one$"),
    "NaN, stop": ([NAN], {}, r"^step 12: the loss is nan; lower the rate$"),
    "NaN that skipping did not mend": ([NAN], {"not_finite": "skip"}, r"^step 12: the loss is nan; lower the rate$"),
    "NaN, roll back": ([NAN], ROLL, {"lr_scale": 0.5}),
    "NaN, roll back again": ([NAN, NAN], {**ROLL, "lr_scale": 0.5}, {"lr_scale": 0.25}),
    "NaN after the last attempt": ([NAN] * 3, {**ROLL, "attempts": 2, "lr_scale": 0.25}, r"is nan; 2 roll-backs .* to a rate of 0\.0005 did not help; .*--resume one"),
    "memory, stop": ([FULL], {}, r"^step 7: too little memory; lower train\.micro_batch \(now 6\), set train\.failures\.out_of_memory: smaller_micro_batch"),
    "memory, smaller": ([FULL], SMALLER, {"micro_batch": 3}),
    "memory, what the spec said": ([{**FULL, "micro_batch": None}], {**SMALLER, "micro_batch": 4}, {"micro_batch": 2}),
    "memory, nothing said": ([{**FULL, "micro_batch": None}], {**SMALLER, "world": 4}, {"micro_batch": 1}),
    "memory, tokens": ([{**FULL, "micro_batch": None}], {**SMALLER, "micro_tokens": 100}, {"micro_tokens": 50}),
    "memory, an odd size": ([{**FULL, "micro_batch": 5}], SMALLER, {"micro_batch": 2}),
    "memory, one row": ([{**FULL, "micro_batch": 1}], SMALLER, r"too little memory; train\.micro_batch=1 cannot be smaller"),
    "memory after the last attempt": ([FULL, FULL], {**SMALLER, "attempts": 1}, r"1 smaller micro-batches .*, down to train\.micro_batch=6, did not help"),
    "memory and NaN count apart": ([NAN, FULL], {**ROLL, **SMALLER, "attempts": 1}, {"micro_batch": 3}),
    "a lost controller": ([{"kind": "controller", "text": "it died", "failures": 3}], {}, {}),
    "a lost controller too many": ([{"kind": "controller", "text": "it died", "failures": 4}], {}, r"^it died; train\.max_failures=3 restarts are used up; .*--resume one$"),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLE)
def test_each_failure_has_its_answer(case: str) -> None:
    history, spec, wanted = TABLE[case]
    found = decide(history, job_of(**spec), failures=history[-1].get("failures", 0))
    if isinstance(wanted, dict):
        assert isinstance(found, Again), found
        assert found.changes == wanted
    else:
        assert isinstance(found, Stop), found
        assert re.search(wanted, found.text), found.text


def test_a_wrong_spec_keeps_its_exit_code() -> None:
    stop = decide([{"kind": "user", "text": "wrong", "exit_code": 2}], job_of())
    assert stop == Stop("wrong", exit_code=2)


def test_changes_make_the_job_that_goes_on_and_leave_the_batch_and_its_identity_alone() -> None:
    job = job_of(micro_batch=6)
    after = changed(job, {"lr_scale": 0.25, "micro_batch": 3})
    assert (after.lr_scale, after.train.micro_batch, after.train.batch) == (0.25, 3, job.train.batch)
    assert after.identity() == job.identity()  # so its checkpoints are those of the same run


def test_a_resumed_run_keeps_the_smaller_of_two_micro_batches() -> None:
    assert changed(job_of(micro_batch=2), {"micro_batch": 3}).train.micro_batch == 2
    assert changed(job_of(), {"micro_batch": 3}).train.micro_batch == 3


def test_deciding_twice_gives_the_same() -> None:
    job = job_of(**ROLL)
    assert decide([NAN], job) == decide([NAN], job)
