"""Models of several encoders with an answer at each token of the text: one that writes a text of what the other towers read, and one that finds hidden
words of a text beside them. Takes config.json as `models.towers` does, and the inputs of `models.inputs`. Importing this registers them, so a saved
folder opens with `AutoModelForImageTextToText` and `AutoModelForMaskedLM`. B rows, L tokens of the text, P of the other towers, D width, V entries of
the vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.modeling_outputs import CausalLMOutput

from models.families import ModelError
from models.towers import FEATURES, TowersConfig, TowersModel

TEXT = "text"


class TowersForCaptioning(TowersModel):
    """`logits` (B, L, V) of a causal language model that sees the tokens of the other towers before the text, each through a norm and one linear layer
    (a prefix as of ClipCap, Mokady et al. 2021, arXiv 2111.09734, here of places in place of one vector). Where a row lacks them, the text
    begins at the first position, as if they had never been."""

    def __init__(self, config: TowersConfig) -> None:
        super().__init__(config)
        widths = self.widths()
        own = widths.pop(TEXT)
        self.prefixes = nn.ModuleDict(
            {name: nn.Sequential(nn.LayerNorm(one), nn.Linear(one, own)) for name, one in widths.items()}
        )
        self.post_init()
        # transformers looks for tied weights in direct children alone, and ties them again behind loading.
        tied = self.writer.all_tied_weights_keys
        self.all_tied_weights_keys |= {f"encoders.{TEXT}.{a}": f"encoders.{TEXT}.{b}" for a, b in tied.items()}

    def tower(self, name: str, values: Mapping[str, Any]) -> nn.Module:
        if name != TEXT:
            return super().tower(name, values)
        made: nn.Module = AutoModelForCausalLM.from_config(AutoConfig.for_model(**values))
        return made

    @property
    def writer(self) -> Any:
        return self.encoders[TEXT]

    def forward(self, labels: torch.Tensor | None = None, **inputs: Any) -> CausalLMOutput:
        seen_BND, mask_BN = self.seen(**inputs)
        position_BN = (mask_BN.long().cumsum(1) - 1).masked_fill(mask_BN == 0, 0)  # as `generate` counts them
        found = self.writer(inputs_embeds=seen_BND, attention_mask=mask_BN, position_ids=position_BN, use_cache=False)
        return CausalLMOutput(logits=found.logits[:, -inputs["input_ids"].shape[1] :])

    def seen(self, **inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """What the language model reads, (B, P + L, D) and its mask: the other towers' tokens, then the text's. Raises ModelError where it has not
        so many positions."""
        parts_BPD, masks_BP = [], []
        for name, project in self.prefixes.items():
            tokens_BPD, mask_BP = FEATURES[name](self.encoders[name], inputs)
            parts_BPD.append(project(tokens_BPD.masked_fill(~mask_BP[:, :, None], 0.0)))
            masks_BP.append(mask_BP.long())
        text_BLD = self.writer.get_input_embeddings()(inputs["input_ids"])
        seen_BND = torch.cat([*parts_BPD, text_BLD], 1)
        most = positions(self.writer.config)
        if most is not None and seen_BND.shape[1] > most:
            raise ModelError(
                f"a text of {text_BLD.shape[1]} tokens behind {seen_BND.shape[1] - text_BLD.shape[1]} of the other towers, and the model that writes"
                f" has {most} positions; lower data.tokenize.max_length"
            )
        return seen_BND, torch.cat([*masks_BP, inputs["attention_mask"].long()], 1)


def positions(config: Any) -> int | None:
    """Most tokens that a language model can see at once; None where its positions have no end."""
    found = getattr(config, "max_position_embeddings", None)
    return int(found) if found else None


AutoModelForImageTextToText.register(TowersConfig, TowersForCaptioning, exist_ok=True)
