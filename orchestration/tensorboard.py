"""A run's numbers as TensorBoard events beside its own: `tensorboard --logdir <storage>/runs` shows every run. Takes names and values of a
step; writes files that tensorboardX (there with Ray Tune) makes. Called by the driver, like the registry."""

from __future__ import annotations

from orchestration.errors import UserError
from orchestration.storage import Storage

FOLDER = "tensorboard"


class TensorBoard:
    """One for a run; a resumed run goes on in a file beside the first."""

    def __init__(self, storage: Storage, run_rel: str) -> None:
        """Raises UserError where storage is no folder of this machine: the event format can only be appended to."""
        if not storage.is_local:
            raise UserError(
                f"tensorboard: storage={storage.url} is not a folder, and its events are appended; set it to false"
            )
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(logdir=storage.path(f"{run_rel}/{FOLDER}"))

    def log(self, values: dict[str, float], *, step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()
