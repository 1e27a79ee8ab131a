from __future__ import annotations

import math

import pytest

from models.families import ModelError
from models.optim import factor, warmup_steps


def _all(total: int, name: str, warmup: int | float) -> list[float]:
    return [factor(step, total, name=name, warmup=warmup) for step in range(total)]


def test_linear_rises_to_one_at_the_last_step_of_warmup_and_falls_evenly() -> None:
    assert _all(8, "linear", 4) == [0.25, 0.5, 0.75, 1.0, 1.0, 0.75, 0.5, 0.25]


def test_cosine_falls_by_half_a_wave() -> None:
    found = _all(6, "cosine", 2)
    assert found[:3] == [0.5, 1.0, 1.0]
    assert found[3:] == pytest.approx([0.5 * (1 + math.cos(math.pi * i / 4)) for i in (1, 2, 3)])


def test_constant_stays_at_one() -> None:
    assert _all(5, "constant", 2) == [0.5, 1.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("name", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("warmup", [0, 3, 0.1, 0.5])
def test_no_update_has_rate_zero_or_more_than_the_peak_and_none_rises_after_warmup(
    name: str, warmup: int | float
) -> None:
    found = _all(37, name, warmup)
    assert all(0.0 < value <= 1.0 for value in found)
    assert max(found) == 1.0
    after = found[warmup_steps(warmup, 37) :]
    assert after == sorted(after, reverse=True)


def test_a_whole_number_is_steps_and_a_fraction_a_share_rounded_up() -> None:
    assert (
        warmup_steps(5, 40),
        warmup_steps(0, 40),
        warmup_steps(0.1, 40),
        warmup_steps(0.1, 41),
        warmup_steps(0.0, 41),
    ) == (5, 0, 4, 5, 0)


def test_a_warmup_longer_than_the_run_is_only_a_rise() -> None:
    assert _all(3, "linear", 10) == [0.1, 0.2, 0.3]


def test_a_run_of_one_step_trains_at_the_peak() -> None:
    assert [_all(1, name, 0.1) for name in ("linear", "cosine", "constant")] == [[1.0]] * 3


def test_another_name_is_refused_with_those_allowed() -> None:
    with pytest.raises(ModelError, match="exponential; allowed: linear, cosine, constant"):
        factor(5, 10, name="exponential")
