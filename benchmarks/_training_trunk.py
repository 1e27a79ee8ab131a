"""Three epochs over a model whose embeddings and five of six layers are frozen, one core: our loop, which computes the frozen part once a
row and stores it, against `transformers` Trainer at its best with `requires_grad=False`. Called by `training`.

Counted from the first row read to the last update: with an empty trunk store, and with a full one. Gate: the same row ids, each three
times; and the validation loss is that of our loop without a trunk store, within 1e-5."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from benchmarks._claim import Claim, compare
from benchmarks._training_inputs import Fit, Rows, job, our_fit, ours, peer, same_rows, trainer_fit
from benchmarks._training_speed import BEST, told

FREEZE, EPOCHS, TOLERANCE = 6, 3, 1e-5
TARGETS = {"filling the trunk store": 1.6, "from an existing trunk store": 2.5}
NOT_COUNTED = ("imports", "build", "validate", "save", "resume")  # what the peer's training loop does not do either


def claims(given: Rows, *, cores: Sequence[int], repeats: int) -> list[Claim]:
    one, names, storage = cores[-1:], frozen(given), given.inputs.storage
    fits: dict[str, list[Fit]] = {name: [] for name in (*TARGETS, BEST)}
    losses: dict[str, list[float]] = {"off": [], "on": []}
    with ours(cores=one) as mine, peer("trainer", cores=one) as theirs:

        def fit(name: str, use: str) -> Fit:
            values = job(
                given,
                f"trunk-{name}",
                epochs=EPOCHS,
                layers={"freeze": FREEZE},
                trunk={"use": use},
                validation={"metric": "accuracy", "rows": 64, "every_steps": 10**6},
            )
            answer = mine.go(job=values)
            losses[use].append([event for event in answer["events"] if event["type"] == "validation"][-1]["loss"])
            return our_fit(given, values, answer, seconds=counted(answer["result"]["seconds"]))

        fit("uncached", "off")
        for _ in range(repeats):
            storage.remove("trunks")
            for name in TARGETS:
                fits[name].append(fit(name, "on"))
            work = told(given, best=True, seed=given.inputs.spec.seed, threads=1, epochs=EPOCHS)
            fits[BEST].append(trainer_fit(theirs.go(**work, frozen=names, score=False)))
            said = {name: round(found[-1].seconds, 2) for name, found in fits.items()}
            print(f"frozen trunk, seconds: {said}", file=sys.stderr, flush=True)
    storage.remove("trunks")
    return [_claim(given, name, fits, losses) for name in TARGETS]


def counted(seconds: dict[str, float]) -> float:
    return sum(spent for part, spent in seconds.items() if part not in NOT_COUNTED)


def frozen(given: Rows) -> list[str]:
    """Names of the frozen parameters, for a peer that knows no depth groups."""
    from models import optim, text

    own = given.inputs
    model = text.skeleton(own.spec.model, own.folder, list(own.spec.data.labels))
    plan = optim.plan_groups(model, lr=1.0, weight_decay=0.0, freeze=FREEZE)
    return [name for row in plan if not row.trainable for name in row.param_names]


def _claim(given: Rows, name: str, fits: dict[str, list[Fit]], losses: dict[str, list[float]]) -> Claim:
    mine, theirs = fits[name], fits[BEST]
    same, says = same_rows(mine + theirs, given.ids(), EPOCHS)
    worst = max(abs(loss - losses["off"][0]) for loss in losses["on"])
    return Claim(
        f"rows a second, embeddings and five of six layers frozen, {EPOCHS} epochs, one core, {name}, against {BEST}",
        better="higher",
        target=TARGETS[name],
        unit="rows/s",
        gate=same and worst <= TOLERANCE,
        gate_says=f"{says}; validation loss with and without the trunk store differs by at most {worst:.1e} (allowed {TOLERANCE:.0e})",
        **compare([fit.rows_per_s for fit in mine], [fit.rows_per_s for fit in theirs]),
    )
