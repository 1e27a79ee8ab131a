"""The mean of a run's checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from orchestration.errors import UserError
from orchestration.storage import Storage
from orchestration.training import averaging, checkpoint, loop
from tests.tiny import make_job


def test_the_newest_checkpoints_are_averaged_tensor_by_tensor(tmp_path: Path) -> None:
    job = make_job(tmp_path, run="one", epochs=4, layers={"freeze": 1}, checkpoint={"keep": 3})
    result = loop.run(job, report=lambda event: None)
    storage = Storage(str(tmp_path))
    used = averaging.newest(storage, "one", 3)
    assert used[-1] == result.last_checkpoint
    assert len(set(used)) == 3
    found = averaging.mean(storage, used)
    parts = [checkpoint.open(storage, rel).weights() for rel in used]
    assert found.keys() == parts[0].keys()  # frozen ones too
    for name, tensor in found.items():
        wanted = sum(part[name].double() for part in parts) / 3
        assert torch.allclose(tensor.double(), torch.as_tensor(wanted), atol=1e-7), name
    moved = "classifier.weight"
    assert not torch.equal(found[moved], parts[-1][moved])
    with pytest.raises(UserError, match=r"--average 9: run one kept \d checkpoints; set train\.checkpoint\.keep to 9"):
        averaging.newest(storage, "one", 9)


def test_checkpoints_of_other_models_are_refused(tmp_path: Path) -> None:
    one, other = (
        loop.run(make_job(tmp_path, run=run, adapter=kind), report=lambda event: None).last_checkpoint
        for run, kind in (("one", None), ("two", "lora"))
    )
    with pytest.raises(UserError, match="holds other tensors than"):
        averaging.mean(Storage(str(tmp_path)), [str(one), str(other)])
