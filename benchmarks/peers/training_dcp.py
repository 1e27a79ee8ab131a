"""`torch.distributed.checkpoint.async_save` in a plain data-parallel loop, served: the training thread's wait for each checkpoint. As the
PyTorch recipe shows it: model and optimizer by `get_state_dict`, the save before awaited first. Where `tuned`, one stager serves all
saves, so that its buffers are there from the second on. Knows nothing of ours."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import ranked
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict import get_state_dict


class AppState:
    def __init__(self, model: Any, optimizer: Any) -> None:
        self.model, self.optimizer = model, optimizer

    def state_dict(self) -> dict[str, Any]:
        model, optimizer = get_state_dict(self.model, self.optimizer)
        return {"model": model, "optimizer": optimizer}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        raise NotImplementedError


def work(
    *, model: str, train: str, folder: str, batch: int, steps: int, save_every: int, tuned: bool
) -> dict[str, Any]:
    """`stalls`: seconds of each save; `bytes` of the last checkpoint."""
    from transformers import AutoModelForSequenceClassification

    torch.set_num_threads(1)
    net = AutoModelForSequenceClassification.from_pretrained(model, num_labels=2)
    net = torch.nn.parallel.DistributedDataParallel(net)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-5, fused=True)
    rows = pq.read_table(train, columns=["input_ids", "label"]).slice(dist.get_rank() * batch, batch).to_pydict()
    ids_BL = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows["input_ids"]], batch_first=True)
    labels_B = torch.tensor(rows["label"])
    group = dist.new_group(backend="gloo")  # DDP's own reductions must not meet those of the thread that saves
    more = {"async_stager": DefaultStager(StagingOptions(False, False, False, False))} if tuned else {}
    saving, stalls = None, []
    for step in range(1, steps + 1):
        net(input_ids=ids_BL, attention_mask=(ids_BL > 0).long(), labels=labels_B).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % save_every:
            continue
        began = time.perf_counter()
        if saving is not None:
            finished(saving)
        state = {"app": AppState(net, optimizer)}
        saving = dcp.async_save(state, checkpoint_id=f"{folder}/step-{step}", process_group=group, **more)
        stalls.append(time.perf_counter() - began)
    finished(saving)
    last = Path(folder) / f"step-{steps // save_every * save_every}"
    size = sum(path.stat().st_size for path in last.iterdir()) if (last / ".metadata").exists() else 0
    dist.barrier()
    if dist.get_rank() == 0:
        shutil.rmtree(folder)
    return {"stalls": stalls, "bytes": size}


def finished(saving: Any) -> None:
    (saving.upload_completion if hasattr(saving, "upload_completion") else saving).result()


if __name__ == "__main__":
    ranked.main(__file__, work)
