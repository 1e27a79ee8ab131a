from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from models.config import ModelConfig
from orchestration.errors import UserError
from orchestration.training.config import TrainConfig
from orchestration.training.job import TrainJob
from orchestration.tuning.trial import Reporter, changed, told

JOB = TrainJob(
    train=TrainConfig(epochs=2, rows=500),
    model=ModelConfig(path="somewhere"),
    labels=("negative", "positive"),
    seed=17,
    storage_url="/storage",
    weights_rel="weights/w",
    store_rel="stores/s",
    run_rel="sweeps/x",
)


def test_a_trial_changes_the_named_paths_and_nothing_else() -> None:
    values = {"train.optimizer.lr": 3e-4, "train.layers.freeze": 2, "model.dropout": 0.2, "train.rows": 60}
    mine = changed(JOB, values, run_rel="sweeps/x/trials/1", workers=2)
    assert (mine.train.optimizer.lr, mine.train.layers.freeze, mine.train.rows) == (3e-4, 2, 60)
    assert mine.model.dropout == 0.2
    assert (mine.world, mine.run_rel, mine.checkpoints) == (2, "sweeps/x/trials/1", False)

    back = changed(
        mine,
        {"train.optimizer.lr": 5e-5, "train.layers.freeze": 0, "model.dropout": None, "train.rows": 500},
        run_rel=JOB.run_rel,
        workers=1,
    )
    assert {**back.dump(), "checkpoints": True} == JOB.dump()


def test_a_path_below_an_absent_part_makes_that_part() -> None:
    mine = changed(JOB, {"train.early_stopping.patience": 3}, run_rel="r", workers=1)
    assert mine.train.early_stopping is not None
    assert mine.train.early_stopping.patience == 3


def test_a_trial_may_choose_the_optimizer() -> None:
    whole = TrainConfig.model_validate(JOB.train.model_dump(mode="json"), strict=True)  # says beta1, which SGD lacks
    job = dataclasses.replace(JOB, train=whole)
    mine = changed(
        job, {"train.optimizer.name": "sgd", "train.optimizer.momentum": 0.5}, run_rel="r", workers=1
    ).train.optimizer
    assert (mine.name, mine.momentum, mine.moments) == ("sgd", 0.5, ("momentum_buffer",))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"train.optimizer.momentum": 0.5}, "momentum: not a key of name=adamw"),
        ({"data.labels": ["a"]}, "a trial cannot change data.labels; allowed: paths under train. and model."),
        ({"seed": 3}, "a trial cannot change seed"),
        ({"train.layers.freeze": 1.5}, "the values train.layers.freeze=1.5 make no valid train part"),
        ({"train.optimiser.lr": 1e-3}, "optimiser"),
        ({"train.batch": 8, "train.micro_batch": 16}, "micro_batch=16 is above batch=8"),
    ],
)
def test_a_value_that_the_spec_would_refuse_is_refused(values: dict[str, object], told: str) -> None:
    with pytest.raises(UserError) as error:
        changed(JOB, values, run_rel="r", workers=1)
    assert told in str(error.value)


def test_the_reported_metric_is_the_best_so_far_and_the_event_the_present_one() -> None:
    reporter = Reporter("accuracy")
    assert reporter.seen({"type": "step", "loss": 0.5}) is None
    said = [
        reporter.seen({"type": "validation", "step": step, "accuracy": value}) for step, value in ((1, 0.6), (2, 0.5))
    ]
    assert [(one["metric"], one["validations"], one["event"]["accuracy"]) for one in said if one] == [
        (0.6, 1, 0.6),
        (0.6, 2, 0.5),
    ]


def test_the_best_loss_is_the_lowest() -> None:
    reporter = Reporter("loss")
    for step, value in ((1, 0.6), (2, 0.5), (3, 0.7)):
        reporter.seen({"type": "validation", "step": step, "loss": value})
    assert reporter.values() == {"metric": 0.5, "validations": 3}


def test_a_diverged_trial_and_one_without_validation_say_so() -> None:
    with pytest.raises(UserError, match="validation loss at step 4 is not a number: the trial diverged"):
        Reporter("loss").seen({"type": "validation", "step": 4, "loss": float("nan")})
    with pytest.raises(UserError, match=r"ended without a validation; set train.validation.every_steps"):
        Reporter("loss").values()


def test_an_error_is_one_line_with_its_kind_unless_it_was_written_for_users() -> None:
    assert told(UserError("600 rows are wanted\nask for fewer")) == "600 rows are wanted ask for fewer"
    assert told(ZeroDivisionError("division\nby zero")) == "ZeroDivisionError: by zero"
    assert told(KeyError()) == "KeyError: "


def test_the_trial_module_is_light_to_import_in_the_driver() -> None:
    import subprocess
    import sys

    code = "import orchestration.tuning.trial, sys; print([m for m in ('torch', 'ray', 'transformers') if m in sys.modules])"
    root = Path(__file__).parents[3]
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root).stdout == "[]\n"
