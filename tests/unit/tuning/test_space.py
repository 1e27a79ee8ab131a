from __future__ import annotations

from typing import Any

import pytest

from orchestration.tuning.config import AshaConfig, Domain, TuneConfig
from orchestration.tuning.space import METRIC, mode, scheduler, searcher, startup_trials, tune_space

SPACE = {
    "train.optimizer.lr": Domain(loguniform=[1e-5, 1e-3]),
    "train.layers.decay": Domain(uniform=[0.5, 1.0]),
    "train.layers.freeze": Domain(randint=[0, 3]),
    "train.batch": Domain(choice=[8, 16]),
}


def _drawn(search: Any, seed: int, count: int = 6, concurrent: int = 6) -> list[dict[str, Any]]:
    """`count` times asked while no trial ends; {} where the searcher hands out none."""
    config = TuneConfig(space=SPACE, search=search, trials=count)
    found = searcher(config, metric="macro_f1", seed=seed, concurrent=concurrent)
    if search == "tpe":
        found.set_search_properties(METRIC, "max", tune_space(SPACE))
        return [found.suggest(str(number)) or {} for number in range(count)]
    from ray.tune.experiment import Experiment

    wanted = Experiment("x", run=_unused, config=tune_space(SPACE), num_samples=count, storage_path="/tmp")
    found.add_configurations([wanted])
    return [trial.config if (trial := found.next_trial()) else {} for _ in range(count)]


def _unused(config: dict[str, Any]) -> None:
    """A trial that is drawn and never run."""


@pytest.mark.parametrize("search", ["tpe", "random"])
def test_every_value_is_drawn_from_its_domain_and_the_same_from_the_same_seed(search: str) -> None:
    drawn = _drawn(search, seed=2**40 + 3)
    for values in drawn:
        assert set(values) == set(SPACE)
        assert 1e-5 <= values["train.optimizer.lr"] <= 1e-3
        assert 0.5 <= values["train.layers.decay"] <= 1.0
        assert values["train.layers.freeze"] in (0, 1, 2)
        assert values["train.batch"] in (8, 16)
    assert drawn == _drawn(search, seed=2**40 + 3)
    assert drawn != _drawn(search, seed=4)


@pytest.mark.parametrize("search", ["tpe", "random"])
def test_no_more_trials_than_fit_are_handed_out_at_once(search: Any) -> None:
    assert len([one for one in _drawn(search, seed=1, concurrent=2) if one]) == 2


def test_tpe_turns_towards_what_scored_well() -> None:
    config = TuneConfig(space={"train.layers.decay": Domain(uniform=[0.0001, 1.0])}, trials=30, metric="accuracy")
    found = searcher(config, metric="macro_f1", seed=5, concurrent=1)
    found.set_search_properties(METRIC, "max", tune_space(config.space))
    tried = []
    for number in range(30):
        value = found.suggest(str(number))["train.layers.decay"]
        found.on_trial_complete(str(number), {METRIC: -abs(value - 0.8)})
        tried.append(abs(value - 0.8))
    assert sum(tried[-10:]) / 10 < sum(tried[:10]) / 20


@pytest.mark.parametrize(("trials", "random"), [(1, 2), (6, 2), (12, 4), (100, 10)])
def test_a_short_sweep_is_not_all_random(trials: int, random: int) -> None:
    assert startup_trials(trials) == random


def test_a_loss_is_minimised_and_scores_are_maximised() -> None:
    assert [mode(metric) for metric in ("loss", "accuracy", "macro_f1")] == ["min", "max", "max"]


def test_asha_stops_the_worse_of_two_trials_at_the_first_rung_and_never_before() -> None:
    asha = scheduler(AshaConfig(grace=2, reduction=2), metric="loss")

    class Trial:
        def __init__(self, name: str) -> None:
            self.trial_id = name

    good, bad = Trial("good"), Trial("bad")
    for trial in (good, bad):
        asha.on_trial_add(None, trial)

    def said(trial: Trial, validations: int, loss: float) -> str:
        return asha.on_trial_result(None, trial, {"validations": validations, METRIC: loss})

    assert said(good, 1, 0.5) == said(bad, 1, 0.9) == "CONTINUE"
    assert said(good, 2, 0.4) == "CONTINUE"
    assert said(bad, 2, 0.9) == "STOP"
    assert said(good, 3, 0.4) == "CONTINUE"


def test_without_asha_there_is_no_scheduler() -> None:
    assert scheduler(None, metric="loss") is None


def test_a_grid_is_every_combination_once() -> None:
    from ray.tune.experiment import Experiment

    space = {"train.fold": Domain(choice=[0, 1, 2]), "train.batch": Domain(choice=[8, 16])}
    config = TuneConfig(space=space, search="grid", asha=None)
    assert config.trials == 6
    found = searcher(config, metric="loss", seed=1, concurrent=10)
    found.add_configurations(
        [Experiment("x", run=_unused, config=tune_space(space, "grid"), num_samples=1, storage_path="/tmp")]
    )
    drawn = [trial.config for _ in range(6) if (trial := found.next_trial())]
    assert sorted((one["train.fold"], one["train.batch"]) for one in drawn) == [
        (f, b) for f in (0, 1, 2) for b in (8, 16)
    ]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (
            {"space": {"train.batch": {"uniform": [1.0, 2.0]}}},
            r"search=grid takes choices alone; write space.train.batch",
        ),
        ({"space": {"train.batch": {"choice": [8, 16]}}, "trials": 3}, r"trials=3, but the grid has 2 combinations"),
        (
            {"space": {"train.fold": {"choice": [0, 1]}}},
            r"means over train.fold would be of unfinished ones; set asha: null",
        ),
    ],
)
def test_a_grid_that_cannot_be_run_is_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        TuneConfig.model_validate({"search": "grid", **values})
