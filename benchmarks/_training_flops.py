"""The share of this core's measured matmul rate that our training loop turns into the model's own work (model FLOPs utilisation).
Called by `training`.

Counted are the floating-point operations that rows of these lengths need (a multiply-add is two; forward once, backward twice), so
padding and whatever else the loop does lower the share. The matmul rate is the best that torch reaches on the same core, one thread,
fp32, on shapes of the model and on large squares, measured in the same process right before each fit."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks._claim import Claim
from benchmarks._peers import Peer
from benchmarks._training_inputs import BATCH, Fit, Rows, job, our_fit, ours, same_rows

TARGETS = {"MiniLM": 0.45, "BERT-base size": 0.6}
BERT_BASE = "weights/bench-bert-base"
LARGE_STEPS = 4
SHAPES = (
    (1024, 1024, 1024),
    (2048, 2048, 2048),
    (800, 384, 1536),
    (800, 1536, 384),
    (800, 768, 3072),
    (800, 3072, 768),
)
ROUNDS, WORK = 5, 1e10  # of each shape, so many times so many operations


def matmul_rate(shapes: Sequence[tuple[int, int, int]] = SHAPES, work: float = WORK) -> float:
    """Operations a second: the best shape's best round. (rows, inputs, outputs)."""
    import torch

    best = 0.0
    for rows, inputs, outputs in shapes:
        x, w = torch.randn(rows, inputs), torch.randn(outputs, inputs)
        once = 2.0 * rows * inputs * outputs
        times = max(1, int(work / once))
        for _ in range(ROUNDS):
            began = time.perf_counter()
            for _ in range(times):
                torch.nn.functional.linear(x, w)
            best = max(best, once * times / (time.perf_counter() - began))
    return best


def train_flops(shape: dict[str, Any], lengths: np.ndarray, classes: int) -> float:
    """Operations of one forward and one backward pass over rows of so many tokens: matrix products of encoder, attention, pooler and
    head; `shape` is a BERT's config.json."""
    n, d, f = lengths.astype(np.float64), shape["hidden_size"], shape["intermediate_size"]
    layer = 2 * n * (4 * d * d + 2 * d * f) + 4 * n * n * d
    return 3.0 * float((shape["num_hidden_layers"] * layer + 2 * d * d + 2 * d * classes).sum())


def claims(given: Rows, *, cores: Sequence[int], repeats: int) -> list[Claim]:
    found: dict[str, list[tuple[Fit, float]]] = {name: [] for name in TARGETS}
    large = Rows(given.inputs, LARGE_STEPS * BATCH, given.folder, given.train, given.held_out)
    with ours(cores=cores[-1:]) as process:
        for repeat in range(repeats):
            for name, rows, more in (
                ("MiniLM", given, {}),
                ("BERT-base size", large, {"weights_rel": bert_base(given)}),
            ):
                found[name].append(one(rows, process, f"flops-{repeat}", more))
                print(
                    f"{name}: {share(rows, found[name][-1], config(given, name)):.3f} of the matmul rate",
                    file=sys.stderr,
                    flush=True,
                )
    return [claim(given if name == "MiniLM" else large, name, found[name]) for name in TARGETS]


def one(rows: Rows, process: Peer, name: str, more: dict[str, Any]) -> tuple[Fit, float]:
    values = {**job(rows, name, validation={"metric": "accuracy", "rows": 1}), **more}
    rate = process.go(matmul=True)["per_s"]
    return our_fit(rows, values, process.go(job=values)), rate


def bert_base(given: Rows) -> str:
    """Weights of that size, drawn at random, in storage; made once."""
    storage = given.inputs.storage
    if storage.manifest(BERT_BASE) is None:
        import torch
        from transformers import BertConfig, BertModel

        aside = storage.staging()
        torch.manual_seed(0)
        BertModel(BertConfig()).save_pretrained(aside)
        storage.commit(BERT_BASE, aside, {})
    return BERT_BASE


def config(given: Rows, name: str) -> dict[str, Any]:
    folder = given.inputs.folder if name == "MiniLM" else given.inputs.storage.fetch(BERT_BASE)
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))


def share(rows: Rows, found: tuple[Fit, float], shape: dict[str, Any]) -> float:
    lengths = np.asarray(rows.inputs.store.split("train").head(rows.count).lengths)
    return train_flops(shape, lengths, classes=2) / found[0].seconds / found[1]


def claim(rows: Rows, name: str, found: list[tuple[Fit, float]]) -> Claim:
    shape = config(rows, name)
    shares = [share(rows, one, shape) for one in found]
    rates = [one[1] for one in found]
    same, says = same_rows([one[0] for one in found], rows.ids())
    return Claim(
        f"floating-point operations a second of the model's own work in training, {name}, one core, against the core's matmul rate",
        ours=statistics.median(share * rate for share, rate in zip(shares, rates, strict=True)) / 1e9,
        peer=statistics.median(rates) / 1e9,
        better="higher",
        target=TARGETS[name],
        unit="GFLOP/s",
        repeats=len(found),
        spread=(min(shares), max(shares)),
        gate=same,
        gate_says=says,
        note="the ratio is the share of the matmul rate (MFU); fp32, real lengths, dropout as in the model",
    )
