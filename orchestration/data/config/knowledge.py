"""`data.knowledge`: facts that are told with a row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, Field, field_validator

if TYPE_CHECKING:
    from orchestration.data.config import DataConfig

PLAIN = "{head} {relation} {tail}"


class KnowledgeConfig(BaseModel, extra="forbid", frozen=True):
    """Triples of a knowledge base that are written, in words, behind the rows that name their ends. A triple that the row itself states, or
    that joins it to its answer, is never told; nor are those that the base keeps for validation and test."""

    path: str = Field(
        min_length=1,
        description="A .parquet, .csv, .tsv or .jsonl file with columns head, relation, tail, or `catalog:NAME` of a graph. With a column"
        " `split` its rows train are told alone.",
    )
    templates: dict[str, str] = Field(
        {}, description=f"relation -> the words of its triples, with {{head}} and {{tail}}; others: '{PLAIN}'."
    )
    most: int = Field(8, ge=0, le=1000, description="Triples a row; 0: none, they are for model.memory alone.")
    into: list[Literal["input", "output"]] = Field(
        ["input"],
        min_length=1,
        description="input: behind the text that is read. output: behind the text that is to be written (seq2seq).",
    )

    @property
    def settings(self) -> dict[str, Any]:
        """JSON values of all but where the triples lie: a package has them beside these."""
        return self.model_dump(mode="json", exclude={"path"})

    @field_validator("templates")
    @classmethod
    def _places(cls, templates: dict[str, str]) -> dict[str, str]:
        for relation, text in templates.items():
            left = text.replace("{head}", "", 1).replace("{tail}", "", 1)
            if len(text) - len(left) != 12 or "{" in left or "}" in left:
                raise ValueError(f"templates.{relation}={text!r}: write {{head}} and {{tail}}, each once")
        return templates


def check(config: DataConfig) -> None:
    """What facts behind a text do not go with. Raises ValueError."""
    if config.knowledge is None:
        return
    excluded = {
        "tokenize.pack": config.tokenize.pack and "joins rows into one entry",
        "tokenize.long: windows": config.tokenize.long == "windows" and "cuts the facts off most of a row's entries",
        "tokenize.fim": config.tokenize.fim and "rearranges the text",
        "augment.when: epoch": config.augment and config.augment.when == "epoch" and "changes the facts with the text",
    }
    for key, why in excluded.items():
        if why:
            raise ValueError(f"knowledge tells facts behind a row's text, and {key} {why}; leave one of the two out")
    for source in config.sources:
        if lost := [key for key in ("tags", "span") if getattr(source, key) is not None]:
            raise ValueError(
                f"source {source.name!r} has {lost[0]}, which belong to words of the text; leave knowledge out"
            )
        if source.text is None:
            raise ValueError(f"source {source.name!r} has no text for the facts of knowledge to stand behind")
        if "output" in config.knowledge.into and source.target is None:
            raise ValueError(f"knowledge.into: output, and source {source.name!r} has no target to write them behind")
