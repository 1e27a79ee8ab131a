"""The `serve` part of the spec. Pydantic only: importing it loads no Ray."""

from __future__ import annotations

from pydantic import BaseModel, Field, model_validator

LOOPBACK = ("127.0.0.1", "localhost", "::1")


class ServeConfig(BaseModel, extra="forbid", frozen=True):
    host: str = Field("127.0.0.1", description="Loopback unless told otherwise; any other address needs token_env.")
    port: int = Field(8000, ge=1, le=65535)
    replicas: int = Field(1, ge=1, le=10_000, description="Replicas a model version.")
    max_batch: int = Field(
        16, ge=1, le=4096, description="Most texts in one forward pass (of models that write: in one generation)."
    )
    batch_wait_s: float = Field(0.005, ge=0.0, le=10.0, description="Longest wait for a batch to fill.")
    max_queue: int = Field(
        256, ge=1, le=10**6, description="Requests waiting or running; beyond it the answer is 503 with Retry-After."
    )
    max_body_bytes: int = Field(1_000_000, ge=1, le=10**9)
    max_texts: int = Field(256, ge=1, le=10**5, description="Texts in one request.")
    max_new_tokens: int = Field(
        512, ge=1, le=2**16, description="Most tokens that a causal language model adds to one prompt."
    )
    timeout_s: float = Field(30.0, gt=0.0, le=3600.0, description="Longest wait of one request for its answer.")
    token_env: str | None = Field(
        None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="Environment variable that holds the bearer token clients must send.",
    )

    @model_validator(mode="after")
    def _guarded(self) -> ServeConfig:
        if self.host not in LOOPBACK and self.token_env is None:
            raise ValueError(
                f"host={self.host} can be reached from other machines; set token_env to the environment variable with a bearer token, or use 127.0.0.1"
            )
        return self
