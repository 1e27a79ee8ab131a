"""What every engine does on two ranks besides giving the right numbers: it leaves batches out, releases frozen groups, gives its state in
pieces and saves memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.parity import engine_cases
from tests.parity.conftest import ENGINES, OFFLOADS, one_thread

LOSS, WEIGHT = 2e-6, 2e-5  # of a sum over 12 rows; see test_stages


@pytest.mark.parametrize("stage", ENGINES)
def test_a_batch_that_is_not_finite_on_one_rank_is_left_out_on_all_to_the_last_bit(
    stage: Any, of_two: dict[str, Any]
) -> None:
    found = of_two[f"skipping{stage}"]
    assert found["with"]["told"] == [[False, False], [True, True], [False, False]]
    assert found["without"]["told"] == [[False, False], [False, False]]
    assert found["with"]["digest"] == found["without"]["digest"]
    assert found["with"]["counts"] == [2]  # a batch left out is no update


@pytest.fixture(scope="module")
def plainly(root: Path) -> dict[str, Any]:
    with one_thread():
        return engine_cases.released_plainly(root, world=2)


@pytest.mark.parametrize("stage", ENGINES)
def test_released_groups_train_on_with_the_moments_of_the_others_as_in_a_plain_optimizer(
    stage: Any, of_two: dict[str, Any], plainly: dict[str, Any]
) -> None:
    """The second engine of the process takes the first one's state; what was frozen begins with its own count of updates."""
    found = of_two[f"releasing{stage}"]
    assert found["losses"] == pytest.approx(plainly["losses"], abs=LOSS)
    assert found["steps"] == plainly["steps"]
    assert sorted(set(found["steps"].values())) == [2, 4]
    for name, values in plainly["weights"].items():
        assert found["weights"][name] == pytest.approx(values, abs=WEIGHT), name


@pytest.mark.parametrize("stage", ENGINES)
def test_a_closed_engine_holds_its_model_no_longer(stage: Any, of_two: dict[str, Any]) -> None:
    assert of_two[f"releasing{stage}"]["freed"]


@pytest.mark.parametrize("stage", ENGINES)
def test_a_snapshot_needs_no_other_rank_and_each_element_is_in_one_of_them(stage: Any, of_two: dict[str, Any]) -> None:
    found = of_two[f"pieces{stage}"]
    assert found["same memory"]
    assert found["as in the model"]
    assert sum(found["bytes"]) == found["all bytes"]
    assert max(found["bytes"]) < 1.01 * min(found["bytes"])
    assert found["counts"] == [2]


@pytest.mark.parametrize("stage", ["auto", 2, 3])
def test_activations_computed_again_change_no_bit(stage: Any, of_two: dict[str, Any]) -> None:
    """With dropout."""
    kept, again = of_two[f"kept{stage}"], of_two[f"again{stage}"]
    assert (again["losses"], again["digest"]) == (kept["losses"], kept["digest"])


@pytest.mark.parametrize(("stage", "offload"), OFFLOADS)
def test_offloaded_state_gives_the_same_training(stage: int, offload: str, of_two: dict[str, Any]) -> None:
    """Without a GPU all memory is the machine's, but the way is DeepSpeed's own of offloading."""
    here, there = of_two[f"kept{stage}"], of_two[f"there{stage}{offload}"]
    assert there["losses"] == pytest.approx(here["losses"], abs=LOSS)
    for name, values in here["weights"].items():
        assert there["weights"][name] == pytest.approx(values, abs=WEIGHT), name


def test_gradients_are_summed_also_of_parameters_that_a_rank_does_not_use(
    of_two: dict[str, Any], of_three: dict[str, Any]
) -> None:
    assert of_two["reducing"]["off"] == 0.0
    assert of_three["reducing"]["off"] < 1e-5  # three ranks' numbers may be added in another order


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
@pytest.mark.parametrize("clip", [None, 0.05])
def test_ranks_that_share_memory_train_as_those_that_send_their_gradients(
    clip: float | None, optimizer: str, world: int, of_two: dict[str, Any], of_three: dict[str, Any]
) -> None:
    """With three ranks some parameter is smaller than the world, and rows of the table are cut unevenly."""
    found = (of_two if world == 2 else of_three)["sharing"]
    sent, *shared = (found[f"{optimizer} {clip} {how}"] for how in ("sent", "shared", "rows"))
    assert sent["kind"] == "Engine"
    for told in shared:
        assert told["kind"] == "SharedEngine"
        assert told["losses"] == pytest.approx(sent["losses"], abs=LOSS)
        assert told["norm"] == (None if clip is None else pytest.approx(sent["norm"], rel=1e-5))
        for name, values in sent["weights"].items():
            assert told["weights"][name] == pytest.approx(values, abs=WEIGHT), name
