"""The interface of a task's answers: texts become items, items are computed in batches with those of other requests, and a
request's items become what it is told. `items` and `payload` belong to one request, `compute` to whoever shares a pass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestration.answers.facts import facts
from orchestration.answers.kinds import KINDS

if TYPE_CHECKING:
    from orchestration.package import Package


class Answers(ABC):
    """Of one open package. `compute` runs in one thread at a time; `items` may run beside it."""

    def __init__(self, package: Package, *, micro_batch: int, limit_s: float) -> None:
        self.package, self.micro_batch, self.limit_s = package, micro_batch, limit_s

    @abstractmethod
    def items(self, texts: Sequence[Any], options: Mapping[str, Any]) -> Sequence[Any]:
        """What is computed for these texts, or pairs of texts, cleaned and tokenised as training did."""

    @abstractmethod
    def compute(self, items: Sequence[Any]) -> Sequence[Any]:
        """One result an item; none depends on the others."""

    @abstractmethod
    def payload(self, items: Sequence[Any], found: Sequence[Any], options: Mapping[str, Any]) -> Any:
        """What travels from the replica to the router, whose `Kind.show` makes the answer of it."""

    def answer(self, texts: Sequence[Any], **options: Any) -> list[dict[str, Any]]:
        """One result a text (or a row of several parts), as an endpoint gives it. Raises Unanswerable."""
        if not texts:
            return []
        kind = KINDS[self.package.task.config.task]
        settled = kind.settled(texts, kind.read(options), facts(self.package.folder))
        items = self.items(texts, settled)
        return kind.show(self.payload(items, self.compute(items), settled), settled, self.package.labels)
