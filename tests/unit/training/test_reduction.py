from __future__ import annotations

import pytest
import torch
from torch import nn

from orchestration.training.reduction import BUCKET_BYTES, Reduction, total_norm

pytestmark = pytest.mark.usefixtures("group_of_one")


class Branched(nn.Module):
    """`spare` takes part only where asked to."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.spare = nn.Linear(4, 4), nn.Linear(4, 1), nn.Linear(4, 1)

    def forward(self, input_BD: torch.Tensor, *, spare: bool = False) -> torch.Tensor:
        hidden_BD = self.first(input_BD)
        return (self.second(hidden_BD) + (self.spare(hidden_BD) if spare else 0)).sum()


def _made(bucket_bytes: int = 64) -> tuple[Branched, list[nn.Parameter], Reduction]:
    torch.manual_seed(0)
    model = Branched()
    parameters = list(model.parameters())
    return model, parameters, Reduction(parameters, bucket_bytes=bucket_bytes)


def _grads(parameters: list[nn.Parameter]) -> list[torch.Tensor]:
    return [parameter.grad.clone() for parameter in parameters if parameter.grad is not None]


@pytest.mark.parametrize("bucket_bytes", [1, 64, BUCKET_BYTES])
def test_gradients_of_micro_batches_add_up_whatever_the_buckets(bucket_bytes: int) -> None:
    model, parameters, reduction = _made(bucket_bytes)
    plain = Branched()
    plain.load_state_dict(model.state_dict())
    for number in range(2):  # a second step begins at zero
        inputs = [torch.randn(3, 4) for _ in range(3)]
        for i, input_BD in enumerate(inputs):
            if i == 2:
                reduction.begin()
            model(input_BD, spare=True).backward()
        reduction.finish()
        plain.zero_grad()
        torch.stack([plain(input_BD, spare=True) for input_BD in inputs]).sum().backward()
        wanted = _grads(list(plain.parameters()))
        for found, want in zip(_grads(parameters), wanted, strict=True):
            assert torch.allclose(found, want, atol=1e-6), number
        reduction.clear()


def test_a_parameter_without_a_gradient_counts_zeros_and_holds_nobody_up() -> None:
    model, _, reduction = _made(1)
    reduction.begin()
    model(torch.randn(3, 4)).backward()
    reduction.finish()
    assert len(reduction.sent) == 0
    assert model.spare.weight.grad is not None
    assert not model.spare.weight.grad.any()
    assert model.first.weight.grad is not None
    assert model.first.weight.grad.any()


def test_nothing_is_sent_before_the_last_micro_batch_and_then_from_the_output_down() -> None:
    model, _, reduction = _made(1)
    sent: list[int] = []
    real = torch.distributed.all_reduce

    def noted(tensor: torch.Tensor, **more: object) -> object:
        sent.append([flat.data_ptr() for flat in reduction.flats].index(tensor.data_ptr()))
        return real(tensor, **more)

    torch.distributed.all_reduce = noted  # type: ignore[assignment]
    try:
        model(torch.randn(3, 4), spare=True).backward()
        assert sent == []
        reduction.begin()
        model(torch.randn(3, 4), spare=True).backward()
        assert sent == list(range(6)), "all were sent while the backward pass ran"
        reduction.finish()
        assert len(sent) == 6
    finally:
        torch.distributed.all_reduce = real


def test_closed_it_leaves_the_parameters_as_they_were() -> None:
    model, parameters, reduction = _made()
    reduction.close()
    assert all(parameter.grad is None for parameter in parameters)
    model(torch.randn(3, 4), spare=True).backward()
    assert all(parameter.grad is not None for parameter in parameters)


def test_the_norm_of_many_elements_is_right_to_six_digits() -> None:
    tensors = [torch.randn(3_000_000), torch.randn(1000, 50)]
    exact = torch.cat([tensor.flatten() for tensor in tensors]).double().norm()
    assert float(total_norm(tensors)) == pytest.approx(float(exact), rel=1e-6)
