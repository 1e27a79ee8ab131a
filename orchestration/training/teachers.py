"""The teachers of a run with `train.distill`, on one rank. Takes the job's packages in storage; gives what they add to the loss of a
micro-batch. Opened by `setup`, asked by the loop. They read what the student reads, in evaluation mode, without gradients."""

from __future__ import annotations

from typing import Any

import torch

from models.distill import divergence
from models.tasks.base import Task
from orchestration import package
from orchestration.errors import UserError
from orchestration.storage import Storage
from orchestration.training.feed import Micro
from orchestration.training.job import TrainJob


class Teachers:
    """Raises UserError for a package of another task, other labels or another tokenizer than the student's."""

    def __init__(self, job: TrainJob, storage: Storage, task: Task, device: torch.device) -> None:
        assert job.train.distill is not None
        self.task, self.device, self.config = task, device, job.train.distill
        self.half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(job.train.precision)
        student = (storage.fetch(job.weights_rel) / "tokenizer.json").read_bytes()
        self.models: list[Any] = []
        for rel in job.teachers:
            opened = package.opened(storage, rel)
            shown = f"train.distill.teacher: package {rel}"
            if (opened.task.config.task, opened.labels) != (job.model.task, list(job.labels)):
                was = f"was trained for {opened.task.config.task} with labels {opened.labels}"
                raise UserError(f"{shown} {was}; the student's are {job.model.task} and {list(job.labels)}")
            if (opened.folder / "tokenizer.json").read_bytes() != student:
                raise UserError(f"{shown} has another tokenizer than the student: it would read other tokens")
            self.models.append(opened.model.to(device).requires_grad_(False))

    def mixed(
        self, hard: torch.Tensor, logits: torch.Tensor, micro: Micro, targets: Any, weight_B: Any
    ) -> torch.Tensor:
        """The task's summed loss and the teachers', by `train.distill.weight`."""
        inputs = {name: tensor.to(self.device) for name, tensor in micro.inputs.items()}
        with torch.no_grad(), torch.autocast(self.device.type, dtype=self.half, enabled=self.half is not None):
            taught = [model(**inputs).logits for model in self.models]
        soft = divergence(self.task, logits, taught, targets, weight_B, self.config.temperature)
        return (1.0 - self.config.weight) * hard + self.config.weight * soft
