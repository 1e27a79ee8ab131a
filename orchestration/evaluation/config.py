"""The `prompt` part of the spec: how a causal language model is asked to classify, without training."""

from __future__ import annotations

from pydantic import BaseModel, Field, model_validator


class PromptConfig(BaseModel, extra="forbid", frozen=True):
    """`template` holds {text} and ends with {label}: shots are filled in whole, the row that is asked for up to its label."""

    template: str = Field("{text}\nAnswer: {label}", description="Holds {text} once and ends with {label}.")
    words: dict[str, str] = Field(
        {}, description="What stands for a class in the template; absent: the class's own name."
    )
    task: str = Field("", description="A sentence that stands first in every prompt.")
    shots: list[int] = Field(
        [0, 4], min_length=1, max_length=8, description="Numbers of worked examples to compare; 0: none (zero-shot)."
    )
    rows: int = Field(200, ge=1, description="Rows of the test split that are asked.")

    @model_validator(mode="after")
    def _asks(self) -> PromptConfig:
        if (
            self.template.count("{text}") != 1
            or not self.template.endswith("{label}")
            or self.template.count("{label}") != 1
        ):
            raise ValueError("template must hold {text} once and end with {label}, once")
        if self.template[: -len("{label}")].rstrip() == self.template[: -len("{label}")]:
            raise ValueError("template needs a space or a line's end before {label}, so that the label begins a word")
        if wrong := [count for count in self.shots if not 0 <= count <= 64]:
            raise ValueError(f"shots={wrong[0]}; allowed: 0 to 64")
        return self
