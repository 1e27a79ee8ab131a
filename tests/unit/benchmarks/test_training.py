"""What the training benchmark counts and compares, without its peers: turns of two loops, steps lost by a death, rows of fits, batches of
alike lengths."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import _training_cluster, _training_trunk, training
from benchmarks._inputs import digest_ids
from benchmarks._peers import PEERS
from benchmarks._training_inputs import Fit, no_worse, our_job, same_rows
from benchmarks._training_overhead import Turns, alternate
from benchmarks._training_start import Start, middle, recipe
from orchestration.errors import UserError
from tests import tiny

sys.path.append(str(PEERS))  # peers import each other by name


def step(number: int, at: float) -> dict[str, Any]:
    return {"type": "step", "step": number, "at": at}


def test_two_loops_take_turns_and_only_their_own_time_counts() -> None:
    order: list[str] = []

    def loop(name: str, pause_s: float) -> Any:
        def run(turns: Turns) -> None:
            for number in range(4):
                order.append(name)
                time.sleep(pause_s)
                turns.report(float(number))

        return run

    quick, slow = alternate(loop("quick", 0.0), loop("slow", 0.05))
    assert order == ["quick", "slow"] * 4
    assert quick.losses == slow.losses == [0.0, 1.0, 2.0, 3.0]
    assert len(quick.wall_s) == len(slow.wall_s) == 3  # the first stretch loads, and is not counted
    assert max(quick.wall_s) < 0.05 <= min(slow.wall_s)


def test_a_loop_that_breaks_ends_both() -> None:
    def breaks(turns: Turns) -> None:
        raise ValueError("no such row")

    with pytest.raises(ValueError, match="no such row"):
        alternate(breaks, lambda turns: turns.report(1.0))


def test_lost_time_runs_to_the_first_step_that_had_not_been_done() -> None:
    before = [{"type": "start"}, step(1, 1.0), step(2, 2.0), {"type": "killed", "at": 2.5}, step(3, 2.6)]
    after = [{"type": "start"}, step(2, 10.0), step(3, 11.0), step(4, 12.0), step(5, 13.0)]
    assert _training_cluster.lost(before + after) == (9.5, 2)


def test_a_recipes_seconds_are_those_of_all_its_steps() -> None:
    result = {"type": "result", "trained": ["a", "b"], "accuracy": 0.75}
    events = [{"type": "start"}, step(1, 5.0), step(2, 6.0), step(3, 7.0), {"type": "trained", "at": 7.0}, result]
    fit = _training_cluster.recipe_fit(events)
    assert (fit.seconds, fit.rows, fit.trained, fit.accuracy) == (3.0, 2, digest_ids(["b", "a"]), 0.75)


def test_our_wait_for_a_checkpoint_is_what_the_loop_says_of_each() -> None:
    events = [{"type": "start"}, {"type": "checkpoint", "stall_s": 0.5}, {"type": "checkpoint", "stall_s": 0.1}]
    assert _training_cluster.stalls_of({"events": events}) == [0.5, 0.1]


def test_fits_that_left_out_or_repeated_a_row_fail_the_gate() -> None:
    ids = ["a", "b", "c"]
    whole, twice = Fit(1.0, digest_ids(ids), 3, 0.5), Fit(1.0, digest_ids(ids * 2), 6, 0.5)
    assert same_rows([whole, whole], ids)[0]
    assert same_rows([twice], ids, epochs=2)[0]
    assert not same_rows([whole, Fit(1.0, digest_ids(["a", "b", "b"]), 3, 0.5)], ids)[0]
    assert not same_rows([whole, twice], ids)[0]


def test_a_score_may_be_less_only_by_what_seeds_explain() -> None:
    def fits(*accuracies: float) -> list[Fit]:
        return [Fit(1.0, "", 0, accuracy) for accuracy in accuracies]

    assert no_worse(fits(0.80, 0.76), fits(0.77, 0.77), seed_std=0.0)[0]
    assert no_worse(fits(0.765), fits(0.77), seed_std=0.0)[0]
    assert not no_worse(fits(0.75), fits(0.77), seed_std=0.0)[0]
    assert no_worse(fits(0.75), fits(0.77), seed_std=0.01)[0]
    assert not no_worse(fits(0.52, 0.52), fits(0.77, 0.77), seed_std=0.02)[0]


def test_the_trunks_seconds_leave_out_what_the_peers_loop_does_not_do_either() -> None:
    spent = {"imports": 5.0, "build": 2.0, "trunk": 3.0, "data": 0.5, "train": 10.0, "validate": 4.0, "save": 1.0}
    assert _training_trunk.counted(spent) == 13.5


def test_a_start_is_told_by_its_parts_and_the_middle_one_is_shown() -> None:
    times = {"entered": 3.0, "imported": 5.0, "loaded": 6.0, "built": 9.0}
    events = [{"type": "start", "parts": times, "world": 2, "parameters": 7}, {**step(1, 10.0), "loss": 0.7}]
    start = recipe(events, began=1.0)
    assert start.seconds == sum(start.parts.values()) == 9.0
    assert start.work == {"world": 2, "parameters": 7}
    others = [Start(seconds, {}, {}, 0.7) for seconds in (8.0, 30.0)]
    assert middle([*others, start]) is start


def test_batches_of_alike_lengths_hold_every_row_once_over_all_ranks() -> None:
    from grouped import ByLength

    lengths = np.random.default_rng(0).integers(1, 100, size=70).tolist()
    ranks = [list(ByLength(lengths, 8, seed=3, rank=rank, world=2)) for rank in range(2)]
    assert sorted(ranks[0] + ranks[1]) == list(range(70))
    assert [len(rows) for rows in ranks] == [35, 35]
    whole = list(ByLength(lengths, 8, seed=3))
    spread = [np.ptp([lengths[row] for row in whole[i : i + 8]]) for i in range(0, 64, 8)]
    assert np.median(spread) < 20


def test_a_line_that_is_half_written_is_not_read(tmp_path: Path) -> None:
    import training_ray

    path = tmp_path / "events.jsonl"
    assert training_ray.events(path) == []
    path.write_text(json.dumps(step(1, 2.0)) + "\n" + '{"type": "st')
    assert training_ray.events(path) == [step(1, 2.0)]


def test_a_jobs_values_become_the_job_again(tmp_path: Path) -> None:
    job = tiny.make_job(tmp_path)
    assert our_job(json.loads(json.dumps(job.dump()))) == job


def test_an_unknown_part_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(UserError, match="step, speed, trunk, workers, flops"):
        training.run(only="step,stall")
