"""A run's numbers where people watch curves: TensorBoard events beside the run, and Weights & Biases. Takes names and values of a step;
files and uploads are made by tensorboardX (there with Ray Tune) and wandb. Called by the driver, like the registry. `opened` makes those
that a spec asks for."""

from __future__ import annotations

import contextlib
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from orchestration.errors import UserError
from orchestration.storage import Storage

FOLDER = "tensorboard"


class Board(ABC):
    """One for a run; a resumed run goes on where the first stopped."""

    name: str

    @abstractmethod
    def log(self, values: dict[str, float], *, step: int) -> None: ...

    @abstractmethod
    def close(self, *, failed: bool) -> None: ...


class Boards:
    """All that a run is shown on; a context, in which an exception means that the run failed. A board that fails is told of by `say` and left out from there
    on: it ends no training."""

    def __init__(self, boards: Sequence[Board], say: Callable[[str], None]) -> None:
        self._boards, self._say = list(boards), say

    def log(self, values: dict[str, float], *, step: int) -> None:
        for board in list(self._boards):
            try:
                board.log(values, step=step)
            except Exception as error:
                self._boards.remove(board)
                self._say(f"{board.name}: {type(error).__name__}: {error}; the run goes on without it from step {step}")
                with contextlib.suppress(Exception):  # told of already
                    board.close(failed=True)

    def __enter__(self) -> Boards:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        for board in self._boards:
            try:
                board.close(failed=kind is not None)
            except Exception as other:
                self._say(f"{board.name}: not ended: {type(other).__name__}: {other}")


def opened(
    storage: Storage,
    run_rel: str,
    *,
    tensorboard: bool,
    wandb: str | None,
    config: dict[str, Any],
    say: Callable[[str], None],
) -> Boards:
    """`wandb`: the project. `config`: what W&B shows of a run beside its numbers. Raises UserError as the classes do, with none left open."""
    found: list[Board] = []
    with contextlib.ExitStack() as stack:
        if tensorboard:
            found.append(TensorBoard(storage, run_rel))
            stack.callback(found[0].close, failed=True)
        if wandb is not None:
            found.append(WandB(storage, run_rel, project=wandb, config=config))
        stack.pop_all()
    return Boards(found, say)


class TensorBoard(Board):
    """`tensorboard --logdir <storage>/runs` shows every run. A resumed run writes a file beside the first."""

    name = "tensorboard"

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

    def close(self, *, failed: bool) -> None:
        self._writer.close()


class WandB(Board):
    """A run of the same id in W&B. Key, server and mode are W&B's own settings (WANDB_API_KEY, WANDB_MODE=offline and so on); its files lie
    under the run where storage is a folder. Steps are values of their own, `step`, against which W&B draws the others: W&B's counter only
    goes up, and a run that went back to a checkpoint tells some steps twice."""

    name = "wandb"

    def __init__(self, storage: Storage, run_rel: str, *, project: str, config: dict[str, Any]) -> None:
        """Raises UserError where wandb is not installed, or W&B does not take the run: no key, no such project, no answer."""
        try:
            import wandb
        except ImportError:
            raise UserError(
                f"wandb: project {project!r} needs the package wandb; install it (pip install 'eagleray[wandb]'), or leave wandb out"
            ) from None
        run_id = run_rel.rpartition("/")[2]
        self._stack = contextlib.ExitStack()
        folder = storage.path(run_rel) if storage.is_local else self._stack.enter_context(tempfile.TemporaryDirectory())
        try:
            self._run = wandb.init(
                project=project,
                id=run_id,
                name=run_id,
                dir=folder,
                config=config,
                resume="allow",
                reinit="create_new",  # else a run of this process that is still open would be given back
                settings=wandb.Settings(silent=True, console="off"),
            )
        except (wandb.Error, ValueError, OSError) as error:  # ValueError: a setting of the environment
            self._stack.close()
            raise UserError(
                f"wandb: project {project!r} was not opened: {error}. Set WANDB_API_KEY, or WANDB_MODE=offline to keep the numbers in"
                " files that `wandb sync` uploads later, or leave wandb out"
            ) from None
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def log(self, values: dict[str, float], *, step: int) -> None:
        self._run.log({**values, "step": step})

    def close(self, *, failed: bool) -> None:
        with self._stack:
            self._run.finish(exit_code=int(failed))
