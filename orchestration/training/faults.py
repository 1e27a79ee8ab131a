"""What goes wrong in a training worker and cannot be mended there. Plain values that travel from a rank to the driver, where
`decisions` says what to do. Imports nothing heavy."""

from __future__ import annotations

from typing import Any


class Fault(Exception):
    """`kind` and plain JSON facts. The message is what the user reads where the run ends with it."""

    kind = "fault"
    exit_code = 1  # the message is complete: the command line prints it without a traceback

    def __init__(self, text: str, **facts: Any) -> None:
        super().__init__(text)
        self.text, self.facts = text, facts

    def dump(self) -> dict[str, Any]:
        return {"kind": self.kind, "text": self.text, **self.facts}

    def __reduce__(self) -> Any:
        return _again, (type(self), self.text, self.facts)


class NotFinite(Fault):
    """A loss or gradient is NaN or infinite. Facts: step, epoch, batch, rows (ids), value."""

    kind = "not_finite"


class OutOfMemory(Fault):
    """Facts: step, micro_batch, micro_tokens, device."""

    kind = "out_of_memory"


class StaleWriter(Fault):
    """A newer attempt of this run has begun. Facts: attempt, newest."""

    kind = "stale_writer"


def _again(cls: type[Fault], text: str, facts: dict[str, Any]) -> Fault:
    return cls(text, **facts)
