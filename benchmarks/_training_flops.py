"""The share of this core's measured matmul rate that our training loop turns into the model's own work (model FLOPs utilisation).
Called by `training`.

Counted are the floating-point operations that rows of these lengths need (a multiply-add is two; forward once, backward twice), so
padding and whatever else the loop does lower the share. The matmul rate is what torch reaches with one large fp32 product on the same
core, one thread, measured in the same process right before each fit."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks._claim import Claim
from benchmarks._peers import Peer
from benchmarks._training_inputs import BATCH, Fit, Rows, job, our_fit, ours, same_rows
from orchestration.training.flops import Encoder, training_flops

TARGETS = {"MiniLM": 0.45, "BERT-base size": 0.6}
BERT_BASE = "weights/bench-bert-base"
LARGE_STEPS = 4


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
    return training_flops(Encoder.of(shape, 2), lengths.tolist()) / found[0].seconds / found[1]


def claim(rows: Rows, name: str, found: list[tuple[Fit, float]]) -> Claim:
    shape = config(rows, name)
    shares = [share(rows, pair, shape) for pair in found]
    rates = [one[1] for one in found]
    by_cpu = statistics.median(
        one * (fit.seconds / (fit.cpu_seconds or fit.seconds)) for one, (fit, _) in zip(shares, found, strict=True)
    )
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
        note=f"the ratio is the share of the matmul rate (MFU), fp32, real lengths; by processor seconds, which a busy machine disturbs less, {by_cpu:.3f}",
    )
