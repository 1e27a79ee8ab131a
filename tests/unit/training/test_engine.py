"""The bare engine in one process, and what engines of every stage do alike in it. DeepSpeed and several ranks are in tests/parity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from orchestration.errors import UserError
from orchestration.storage import Storage
from orchestration.training import engine as engines
from orchestration.training import loop, process
from orchestration.training.config import TrainConfig
from orchestration.training.fragments import HostCopies, share
from orchestration.training.scaling import EVERY, FLOOR, START, LossScale
from tests.parity import engine_cases as cases
from tests.tiny import make_job, make_weights

NAN, INF = float("nan"), float("inf")
OTHERS: dict[str, dict[str, Any]] = {
    "adam": {"name": "adam", "lr": cases.RATE},
    "momentum": {"name": "sgd", "lr": cases.RATE, "momentum": 0.9, "nesterov": True},
    "sgd": {"name": "sgd", "lr": cases.RATE},
    "lamb": {"name": "lamb", "lr": cases.RATE},
}
KEPT = {
    "adam": {"exp_avg", "exp_avg_sq"},
    "momentum": {"momentum_buffer"},
    "sgd": set(),
    "lamb": {"exp_avg", "exp_avg_sq"},
}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("engine")
    make_weights(Storage(str(root)))
    return root


# ---------------------------------------------------------------------------------------------------- state in pieces


@pytest.mark.parametrize("world", [1, 2, 3, 7, 50])
def test_ranks_share_out_tensors_so_that_each_element_is_written_once(world: int) -> None:
    sizes = {"a": 10, "b": 1, "c": 31, "d": 0, "e": 5}
    parts = [share(sizes, rank=rank, world=world) for rank in range(world)]
    seen = [(name, i) for part in parts for name, start, numel in part for i in range(start, start + numel)]
    assert seen == [(name, i) for name, size in sizes.items() for i in range(size)]
    held = [sum(numel for _, _, numel in part) for part in parts]
    assert max(held) - min(held) <= 1


def test_a_snapshot_does_not_change_with_the_training_that_goes_on(root: Path) -> None:
    engine = cases.build(root, 1)
    cases.step(engine, 0, 0, 1)
    taken = cases.whole([engine.snapshot()])
    fragments = engine.snapshot().weights
    cases.step(engine, 1, 0, 1)
    for fragment in fragments:
        place = slice(fragment.start, fragment.start + len(fragment.values))
        assert torch.equal(fragment.values, taken.tensors[fragment.name][place])
    assert cases.whole([engine.snapshot()]).digest() != taken.digest()


def test_a_snapshot_before_the_first_update_has_zero_moments_and_no_updates(root: Path) -> None:
    state = cases.whole([cases.build(root, 1).snapshot()])
    assert set(state.steps.values()) == {0}
    assert not any(values.any() for name, values in state.tensors.items() if name.endswith((".exp_avg", ".exp_avg_sq")))


def test_frozen_parameters_are_not_in_a_snapshot(root: Path) -> None:
    engine = cases.build(root, 1, freeze=2)
    names = set(engine.snapshot().steps)
    assert names == {name for name, parameter in engine.parameters.items() if parameter.requires_grad}
    assert not any("embeddings" in name or "layer.0" in name for name in names)


def test_buffers_of_the_model_are_in_a_snapshot_in_their_own_type() -> None:
    copies = HostCopies(CPU)
    fragment = copies.fragment("running", 0, torch.arange(3))
    assert fragment.values.dtype == torch.int64


def test_a_group_whose_parameters_tell_different_counts_is_refused(root: Path) -> None:
    engine = cases.build(root, 1)
    engine._flats = lambda: [(engine.clipped[0], engine.trainable[:2])]  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="several counts of updates"):
        engine.restore(lambda name, start, stop: torch.zeros(stop - start), {engine.trainable[0]: 3}, {})


@pytest.mark.parametrize("name", ["adamw", *OTHERS])
def test_resumed_it_goes_on_to_the_last_bit(name: str, root: Path) -> None:
    chosen: dict[str, Any] = {"optimizer": OTHERS[name]} if name in OTHERS else {}
    found = cases.resuming(root, 0, 1, name="", **chosen)
    assert found["resumed"] == found["unbroken"]


def test_released_groups_are_those_of_a_plain_optimizer_to_which_they_are_added(root: Path) -> None:
    _same(cases.releasing(root, 0, 1, name=""), cases.released_plainly(root, 1))


# ---------------------------------------------------------------------------------------------------- other optimizers


@pytest.mark.parametrize("name", OTHERS)
def test_an_optimizer_keeps_of_each_parameter_what_the_spec_says_and_nothing_else(name: str, root: Path) -> None:
    engine = cases.build(root, 1, optimizer=OTHERS[name])
    assert engine.config.optimizer.moments == tuple(sorted(KEPT[name]))
    cases.step(engine, 0, 0, 1)
    assert {frozenset(state) for state in engine.optimizer.state.values()} == {frozenset({"step", *KEPT[name]})}
    assert len(engine.optimizer.state) == len(engine.trainable)
    assert len(engine.snapshot().moments) == len(KEPT[name]) * len(engine.trainable)


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("clip_norm", [0.05, None])
def test_any_optimizer_leaves_a_batch_out_to_the_last_bit(name: str, clip_norm: float | None, root: Path) -> None:
    found = cases.skipping(root, 0, 1, name="", clip_norm=clip_norm, optimizer=OTHERS[name])
    assert found["with"]["told"] == [[False], [True], [False]]
    assert found["with"]["digest"] == found["without"]["digest"]
    assert found["with"]["counts"] == [2]


@pytest.mark.parametrize(
    ("name", "plain", "numbers"),
    [
        ("adam", torch.optim.Adam, {}),
        ("momentum", torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
        ("sgd", torch.optim.SGD, {}),
    ],
)
def test_groups_released_under_any_optimizer_are_those_of_a_plain_one(
    name: str, plain: Any, numbers: dict[str, Any], root: Path
) -> None:
    """Clipped, too."""
    found = cases.releasing(root, 0, 1, name="", optimizer=OTHERS[name])
    _same(found, cases.released_plainly(root, 1, plain, **numbers))


def test_lamb_begins_a_released_group_anew_and_goes_on_with_the_others(root: Path) -> None:
    """A running one of all groups leaves those alone that no gradient comes for."""
    found = cases.releasing(root, 0, 1, name="", optimizer=OTHERS["lamb"])
    engine = cases.build(root, 1, freeze=1, optimizer=OTHERS["lamb"])
    released = {name for name in engine.trainable if "layer.0." in name or "layer.1." in name}
    losses = []
    for number in range(4):
        for name in released:
            engine.parameters[name].requires_grad_(number > 1)
        losses.append(cases.step(engine, number, 0, 1))
    state = cases.state_of(engine, 1)
    _same(found, {"losses": losses, "steps": state.steps, "weights": cases.sample(state)})
    assert sorted(set(state.steps.values())) == [2, 4]


def _same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found["steps"] == wanted["steps"]
    assert found["losses"] == pytest.approx(wanted["losses"], abs=2e-6)
    for name, values in wanted["weights"].items():
        assert found["weights"][name] == pytest.approx(values, abs=2e-5), name


# ---------------------------------------------------------------------------------------------------- not finite


@pytest.mark.parametrize("times", [NAN, INF, -INF])
@pytest.mark.parametrize("clip_norm", [1.0, 0.05, None])
def test_a_batch_that_is_not_finite_is_left_out_to_the_last_bit(
    root: Path, times: float, clip_norm: float | None
) -> None:
    found = cases.skipping(root, 0, 1, name="", times=times, clip_norm=clip_norm)
    assert found["with"]["told"] == [[False], [True], [False]]
    assert found["with"]["digest"] == found["without"]["digest"]
    assert found["with"]["counts"] == [2]


def test_a_gradient_that_is_not_finite_under_a_finite_loss_is_left_out_too(root: Path) -> None:
    engine = cases.build(root, 1, failures={"not_finite": "skip"})
    before = cases.state_of(engine, 1).digest()
    handle = engine.clipped[3].register_hook(lambda gradient: gradient * INF)
    cases.step(engine, 0, 0, 1)
    handle.remove()
    assert engine.skipped
    assert cases.state_of(engine, 1).digest() == before


def test_without_the_policy_nothing_is_left_out_and_the_norm_tells(root: Path) -> None:
    engine = cases.build(root, 1)
    cases.step(engine, 0, 0, 1, times=NAN)
    assert not engine.skipped
    assert not torch.isfinite(torch.as_tensor(engine.grad_norm))


# ---------------------------------------------------------------------------------------------------- precision


def test_fp16_is_refused_without_a_gpu(root: Path) -> None:
    with pytest.raises(UserError, match=r"train\.precision=fp16 needs a GPU"):
        cases.build(root, 1, precision="fp16")


@pytest.fixture
def on_any_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """fp16 runs on a CPU too, only slowly: what it does can be seen without a GPU."""
    monkeypatch.setattr(engines, "refuse", lambda config, device: None)


@pytest.mark.usefixtures("on_any_device")
@pytest.mark.parametrize("optimizer", [{"lr": cases.RATE}, *OTHERS.values()])
def test_fp16_trains_as_fp32_does_but_for_its_rounding(root: Path, optimizer: dict[str, Any]) -> None:
    """Norms are told without the loss scale, clipping goes by them."""
    found: dict[str, list[float]] = {}
    for precision in ("fp32", "fp16"):
        engine = cases.build(root, 1, precision=precision, clip_norm=0.1, optimizer=optimizer)
        found[precision] = []
        for number in range(3):
            found[precision] += [cases.step(engine, number, 0, 1), float(engine.grad_norm or 0)]
    assert found["fp16"] == pytest.approx(found["fp32"], rel=1e-2)
    assert found["fp16"] != found["fp32"]


@pytest.mark.usefixtures("on_any_device")
@pytest.mark.parametrize(
    ("policy", "optimizer"),
    [("stop", {}), *(("skip", {"optimizer": chosen}) for chosen in ({"lr": cases.RATE}, *OTHERS.values()))],
)
def test_an_overflow_halves_the_scale_and_is_no_failure_as_long_as_that_helps(
    root: Path, policy: str, optimizer: dict[str, Any]
) -> None:
    engine = cases.build(root, 1, precision="fp16", failures={"not_finite": policy}, **optimizer)
    assert engine.scaling is not None
    cases.step(engine, 0, 0, 1)
    norm, before = float(engine.grad_norm or 0), cases.state_of(engine, 1)
    for lower in (2.0, 4.0):
        handle = engine.clipped[0].register_hook(lambda gradient: gradient * INF)
        cases.step(engine, 1, 0, 1)
        handle.remove()
        assert (engine.skipped, float(engine.scaling.scale)) == (False, START / lower)
        assert float(engine.grad_norm or 0) == norm
    assert cases.state_of(engine, 1).digest() == before.digest()
    engine.scaling.scale.fill_(FLOOR)
    engine.clipped[0].register_hook(lambda gradient: gradient * INF)
    cases.step(engine, 1, 0, 1)
    assert engine.skipped == (policy == "skip")
    assert not torch.isfinite(torch.as_tensor(engine.grad_norm))


@pytest.mark.usefixtures("on_any_device")
def test_a_loss_that_is_not_finite_in_fp16_is_not_the_scales_doing(root: Path) -> None:
    engine = cases.build(root, 1, precision="fp16", failures={"not_finite": "skip"})
    assert engine.scaling is not None
    cases.step(engine, 0, 0, 1, times=NAN)
    assert (engine.skipped, float(engine.scaling.scale)) == (True, START)
    cases.step(engine, 1, 0, 1)
    assert not engine.skipped


@pytest.mark.usefixtures("on_any_device")
def test_the_loss_scale_goes_on_after_a_resumption(root: Path) -> None:
    engine = cases.build(root, 1, precision="fp16")
    assert engine.scaling is not None
    engine.scaling.update(torch.tensor(True))
    engine.scaling.update(torch.tensor(False))
    again = cases.build(root, 1, precision="fp16", state=cases.state_of(engine, 1))
    assert again.scaling is not None
    assert again.scaling.dump() == {"loss_scale": START / 2, "loss_scale_good": 1.0}


def test_the_loss_scale_doubles_after_many_good_updates_and_never_falls_below_one() -> None:
    scale = LossScale(CPU, every=3)
    found = []
    for overflow in (True, False, False, False, False, True):
        scale.update(torch.tensor(overflow))
        found.append(float(scale.scale) / START)
    assert found == [0.5, 0.5, 0.5, 1.0, 1.0, 0.5]
    for _ in range(40):
        scale.update(torch.tensor(True))
    assert (float(scale.scale), bool(scale.lowest)) == (FLOOR, True)
    assert EVERY > 1000


def test_bf16_is_autocast_over_fp32_weights(root: Path) -> None:
    engine = cases.build(root, 1, precision="bf16")
    inputs, _ = cases.batch(0, 0, 0)
    assert engine.forward(**inputs).dtype == torch.bfloat16
    assert {parameter.dtype for parameter in engine.parameters.values()} == {torch.float32}


# ---------------------------------------------------------------------------------------------------- less memory


def test_activations_computed_again_change_no_bit_and_leave_the_frozen_bottom_alone(root: Path) -> None:
    """transformers' own switch makes the backward pass go down to the embeddings; ours does not."""
    kept = cases.trained(root, 0, 1, name="", dropout=0.1, freeze=2)
    again = cases.trained(root, 0, 1, name="", dropout=0.1, freeze=2, activation_checkpointing=True)
    assert again == kept
    engine = cases.build(root, 1, freeze=2, activation_checkpointing=True)
    seen: list[tuple[int, bool]] = []
    encoder: Any = engine.model.get_submodule("bert.encoder")
    for number, layer in enumerate(encoder.layer):
        layer.register_forward_hook(lambda module, given, out, n=number: seen.append((n, out.requires_grad)))
    cases.step(engine, 0, 0, 1)
    assert set(seen) == {(0, False), (1, True)}


def test_activation_checkpointing_of_a_model_that_cannot_is_refused_by_name() -> None:
    config = TrainConfig.model_validate({"activation_checkpointing": True})
    with pytest.raises(UserError, match=r"train\.activation_checkpointing: Linear cannot"):
        engines._prepare(torch.nn.Linear(2, 2), config, CPU, stage=None)


# ---------------------------------------------------------------------------------------------------- which engine


def test_one_worker_trains_with_the_bare_engine(root: Path) -> None:
    assert cases.build(root, 1).stage is None


def test_compiling_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines.shutil, "which", lambda name: None)
    with pytest.raises(UserError, match=r"train\.compile needs a C\+\+ compiler"):
        engines.refuse(TrainConfig.model_validate({"compile": True}), CPU)


def test_compiling_and_stage_3_are_refused_together() -> None:
    with pytest.raises(UserError, match=r"train\.compile and train\.zero\.stage=3"):
        engines.refuse(TrainConfig.model_validate({"compile": True, "zero": {"stage": 3}}), CPU)


@pytest.mark.parametrize(("quick", "chosen"), [(True, "bf16"), (False, "fp32")])
def test_precision_auto_is_what_the_machine_is_quick_at(
    quick: bool, chosen: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(process, "quick_in_bf16", lambda device: quick)
    events: list[dict[str, Any]] = []
    result = loop.run(make_job(tmp_path, precision="auto", checkpoints=False), report=events.append)
    assert (result.precision, events[0]["precision"]) == (chosen, chosen)
    assert make_job(tmp_path).train.precision == "fp32", "nobody is given bf16 unasked"
