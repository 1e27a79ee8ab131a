"""The searched values of a sweep. Takes the spec's `tune` part; gives a Ray Tune search space with the algorithm that draws
from it and the scheduler that stops poor trials. Called by `sweep.py` in the driver. That the paths exist in the spec was
checked before; here a path is only a name."""

from __future__ import annotations

import warnings
from typing import Any

from models.config import LOWER
from orchestration.tuning.config import AshaConfig, Domain, TuneConfig

METRIC, TIME = "metric", "validations"  # names in a trial's reports
NO_LAST_RUNG = 10**9  # validations; a trial ends by its own epochs, ASHA only ends the poor ones early


def mode(metric: str) -> str:
    """`min` for a loss, `max` for a score."""
    return "min" if metric in LOWER else "max"


def tune_space(space: dict[str, Domain], search: str = "tpe") -> dict[str, Any]:
    """Spec path -> Ray Tune domain."""
    if search == "grid":
        from ray import tune

        return {path: tune.grid_search(domain.choice or []) for path, domain in space.items()}
    return {path: _domain(domain) for path, domain in space.items()}


def _domain(domain: Domain) -> Any:
    from ray import tune

    if domain.uniform is not None:
        return tune.uniform(*domain.uniform)
    if domain.loguniform is not None:
        return tune.loguniform(*domain.loguniform)
    if domain.randint is not None:
        return tune.randint(*domain.randint)
    return tune.choice(domain.choice)


def searcher(config: TuneConfig, *, metric: str, seed: int, concurrent: int) -> Any:
    """The search algorithm, with at most `concurrent` trials at once: equal seeds draw equal first values. TPE (Bergstra
    et al. 2011) by Optuna, or random; a grid is what its space holds."""
    if config.search in ("random", "grid"):
        from ray.tune.search.basic_variant import BasicVariantGenerator

        # Tune applies its own `max_concurrent_trials` to every searcher but this one, which it silently lets run wide.
        return BasicVariantGenerator(random_state=seed % 2**32, max_concurrent=concurrent)
    import optuna
    from ray.tune.search import ConcurrencyLimiter
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constant_liar is marked experimental
        sampler = optuna.samplers.TPESampler(
            seed=seed % 2**32,
            n_startup_trials=startup_trials(config.trials),
            constant_liar=True,  # trials running side by side are not drawn from the same spot
        )
        found = OptunaSearch(sampler=sampler, metric=METRIC, mode=mode(metric))
    return ConcurrencyLimiter(found, max_concurrent=concurrent)


def startup_trials(trials: int) -> int:
    """Random draws before TPE has a model: Optuna's 10, but of a short sweep a third, or all of it would be random."""
    return min(10, max(2, trials // 3))


def scheduler(asha: AshaConfig | None, *, metric: str) -> Any:
    """ASHA counted in validations; None: every trial runs to its end."""
    if asha is None:
        return None
    from ray.tune.schedulers import ASHAScheduler

    return ASHAScheduler(
        time_attr=TIME,
        metric=METRIC,
        mode=mode(metric),
        max_t=NO_LAST_RUNG,
        grace_period=asha.grace,
        reduction_factor=asha.reduction,
    )
