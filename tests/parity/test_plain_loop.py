"""The product's loop against twenty lines of PyTorch written out below, which use none of its optimizer, plan, schedule, loss or
batching: only the row order and the starting weights are taken over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from models.config import ModelConfig
from models.text import build
from orchestration.data.order import Epoch
from orchestration.data.store import TokenStore
from orchestration.storage import Storage
from orchestration.training import checkpoint, loop
from orchestration.training.job import TrainJob
from tests.parity.conftest import losses, one_thread
from tests.tiny import make_job

STEPS, WARMUP, BATCH, PEAK, DECAY = 24, 3, 12, 2e-3, 0.9
ORDER: tuple[tuple[str, ...], ...] = (
    ("bert.encoder.layer.0.",),
    ("bert.encoder.layer.1.",),
    ("bert.pooler.", "classifier."),
)  # from input to output


def _plain(job: TrainJob, root: Path) -> tuple[list[float], dict[str, torch.Tensor]]:
    storage = Storage(str(root))
    store = TokenStore.open(storage, job.store_rel)
    split = store.split("train")
    model = build(job.model, storage.fetch(job.weights_rel), list(job.labels), seed=job.seed)
    groups: list[dict[str, Any]] = []
    for depth, prefix in enumerate(reversed(ORDER)):
        for matrix, decay in ((True, 0.01), (False, 0.0)):
            chosen = [p for n, p in model.named_parameters() if n.startswith(prefix) and (p.ndim > 1) == matrix]
            groups.append({"params": chosen, "weight_decay": decay, "lr": PEAK * DECAY**depth})
    optimizer = torch.optim.AdamW(groups)
    rates = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: (i + 1) / WARMUP if i < WARMUP else (STEPS - i) / (STEPS - WARMUP)
    )
    found = []
    for epoch in range(3):
        order = Epoch(store.fingerprint, split.lengths, batch=BATCH, seed=job.seed, epoch=epoch)
        for rows in map(order.batch, range(len(order))):
            texts = [torch.tensor(ids) for ids in split.input_ids(rows)]
            ids_BL = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)
            output = model(
                input_ids=ids_BL, attention_mask=(ids_BL != 0).long(), labels=torch.tensor(split.labels[rows])
            )
            optimizer.zero_grad()
            output.loss.backward()
            torch.nn.utils.clip_grad_norm_([p for group in groups for p in group["params"]], 1.0)
            optimizer.step()
            rates.step()
            found.append(output.loss.item())
    return found, {name: tensor.detach() for name, tensor in model.named_parameters()}


@pytest.fixture(scope="module")
def both(root: Path) -> dict[str, Any]:
    job = make_job(
        root,
        run="against-plain",
        epochs=3,
        batch=BATCH,
        micro_batch=5,
        optimizer={"lr": PEAK, "weight_decay": 0.01},
        layers={"decay": DECAY, "freeze": 1},
        schedule={"name": "linear", "warmup": WARMUP},
    )
    with one_thread():
        plain, plain_weights = _plain(job, root)
        ours = loop.run(job, report=lambda event: None).dump()
    found = checkpoint.open(Storage(str(root)), ours["last_checkpoint"]).weights()
    return {
        "plain": plain,
        "ours": losses(ours),
        "plain_weights": plain_weights,
        "our_weights": found,
        "folder": Storage(str(root)).fetch(job.weights_rel),
    }


def test_losses_are_those_of_a_plain_pytorch_loop_to_the_sixth_decimal(both: dict[str, Any]) -> None:
    """Over 24 steps in three epochs, each batch taken in micro-batches of 5 by ours and whole by the other."""
    assert len(both["ours"]) == len(both["plain"]) == STEPS
    assert both["ours"] == pytest.approx(both["plain"], abs=2e-6)


def test_final_weights_are_those_of_a_plain_pytorch_loop(both: dict[str, Any]) -> None:
    """They have moved by more than 0.01. Key biases have a gradient of rounding noise alone, which AdamW blows up; no output depends on them."""
    assert both["our_weights"].keys() == both["plain_weights"].keys()
    for name, tensor in both["plain_weights"].items():
        if not name.endswith("attention.self.key.bias"):
            assert (tensor - both["our_weights"][name]).abs().max() < 5e-5, name
    drawn = build(ModelConfig(path="tiny", dropout=0.0), both["folder"], ["negative", "positive"], seed=7).state_dict()
    moved = [float((tensor - drawn[name]).abs().max()) for name, tensor in both["plain_weights"].items()]
    assert max(moved) > 0.01
