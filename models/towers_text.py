"""Models of several encoders with an answer at each token of the text: one that writes a text of what the other towers read, and one that finds hidden
words of a text beside them. Takes config.json as `models.towers` does, and the inputs of `models.inputs`. Importing this registers them, so a saved
folder opens with `AutoModelForImageTextToText` and `AutoModelForMaskedLM`. B rows, L tokens of the text, P of the other towers, D width, V entries of
the vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForMaskedLM
from transformers.modeling_outputs import CausalLMOutput, MaskedLMOutput

from models.families import ModelError
from models.towers import FEATURES, TowersConfig, TowersModel, fused

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


class TowersForMaskedLM(TowersModel):
    """`logits` (B, L, V) of the text's tokens: their hidden states and what a fusion of all towers adds to them, through the head of BERT, whose last
    layer is the text tower's table of words again (masked language modelling beside a picture as VisualBERT has it, Li et al. 2019, arXiv 1908.03557).
    With `asked` (N,), numbers of tokens in the batch row by row, the logits of those alone (1, N, V)."""

    takes_asked = True

    def __init__(self, config: TowersConfig) -> None:
        super().__init__(config)
        widths = self.widths()
        self.fusion, joined = fused(config, widths)
        if hasattr(self.fusion, "join"):
            self.fusion.join = Unread()
        own = widths[TEXT]
        self.back = nn.Linear(joined, own)
        self.transform = nn.Sequential(nn.Linear(own, own), nn.GELU(), nn.LayerNorm(own))
        words: Any = self.encoders[TEXT].get_input_embeddings()
        self.decoder = nn.Linear(own, words.num_embeddings)
        nn.init.zeros_(self.decoder.bias)
        self.decoder.weight = words.weight
        self.post_init()
        name = next(name for name, parameter in self.named_parameters() if parameter is words.weight)
        self.all_tied_weights_keys |= {"decoder.weight": name}

    def forward(
        self, labels: torch.Tensor | None = None, asked: torch.Tensor | None = None, **inputs: Any
    ) -> MaskedLMOutput:
        features = self.features(**inputs)
        text_BLD = features[TEXT][0]
        mixed_BLJ = self.fusion(features).tokens_BLD[:, : text_BLD.shape[1]]  # the text is the first of the modalities
        hidden = text_BLD + self.back(mixed_BLJ)
        if asked is not None:
            hidden = hidden.flatten(0, 1)[asked][None]
        return MaskedLMOutput(logits=self.decoder(self.transform(hidden)))


class Unread(nn.Module):
    """In place of the layer for a fusion's vector, which nothing here reads: a parameter without gradient would make ranks wait for each other."""

    def forward(self, mean_BMD: torch.Tensor, present_BM: torch.Tensor) -> torch.Tensor:
        return mean_BMD[:, 0]


def positions(config: Any) -> int | None:
    """Most tokens that a language model can see at once; None where its positions have no end."""
    found = getattr(config, "max_position_embeddings", None)
    return int(found) if found else None


AutoModelForImageTextToText.register(TowersConfig, TowersForCaptioning, exist_ok=True)
AutoModelForMaskedLM.register(TowersConfig, TowersForMaskedLM, exist_ok=True)
