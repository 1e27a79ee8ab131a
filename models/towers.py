"""One model of several encoders: a tower for each modality, their fusion, and a head (`models.towers_text` has those for tokens of the text). Takes config.json of each tower (`TowersConfig`); the inputs are
those of `models.inputs`. Importing this registers model_type `eagleray_towers`, so a saved folder opens with `AutoModelForSequenceClassification`. A
modality may be missing in a row: its mask says so, and nothing hangs on what stands there. One tower alone has no fusion: encoders of sound and series,
which transformers has no heads for, are classified so. B rows, L tokens, D width, K classes."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from models import audio, fusion, series
from models.families import ModelError
from models.fusion import Features
from models.layers import masked_mean
from models.video import frames
from models.vision import vgg

__all__ = [
    "TowersConfig",
    "TowersForClassification",
    "TowersForContrast",
    "audio",
    "series",
    "vgg",
]  # their model types are registered too


class TowersConfig(PreTrainedConfig):
    """`towers`: modality -> config.json of its encoder. `fusion`: keywords of `fusion.build`, for more than one.
    `projection`: width of the vectors that are compared."""

    model_type = "eagleray_towers"

    towers: dict[str, dict[str, Any]] | None = None
    fusion: dict[str, Any] | None = None
    dropout: float = 0.0
    projection: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        given = self.towers or {}
        unknown = set(given) - set(FEATURES)
        if unknown:
            raise ModelError(f"towers {sorted(unknown)} are not known; there are: {', '.join(FEATURES)}")
        self.towers = {name: given[name] for name in FEATURES if name in given}
        super().__post_init__(**kwargs)


class TowersModel(PreTrainedModel):
    """The encoders. Inputs of each by name; see `FEATURES`."""

    config_class = TowersConfig
    base_model_prefix = ""
    main_input_name = "attention_mask"

    def __init__(self, config: TowersConfig) -> None:
        super().__init__(config)
        assert config.towers is not None
        self.encoders = nn.ModuleDict({name: self.tower(name, values) for name, values in config.towers.items()})

    def tower(self, name: str, values: Mapping[str, Any]) -> nn.Module:
        """A new one, from its config.json."""
        return encoder(values)

    def _init_weights(self, module: nn.Module) -> None:
        """Encoders have drawn theirs; fusions and linear layers keep what torch gives them."""

    def towers(self) -> list[tuple[str, nn.Module]]:
        """For depth groups: each tower is counted for itself."""
        return list(self.encoders.items())

    def widths(self) -> dict[str, int]:
        return {name: width(tower) for name, tower in self.encoders.items()}

    def features(self, **inputs: torch.Tensor) -> Features:
        """Each tower's tokens and mask."""
        return {name: FEATURES[name](tower, inputs) for name, tower in self.encoders.items()}


class TowersForClassification(TowersModel):
    """`logits` (B, K)."""

    def __init__(self, config: TowersConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        widths = self.widths()
        self.fusion: fusion.Fusion | None = None
        found = next(iter(widths.values()))
        if len(widths) > 1:
            self.fusion, found = fused(config, widths, classes=config.num_labels)
        self.dropout = nn.Dropout(config.dropout)
        decides = isinstance(self.fusion, fusion.Decision)
        self.classifier = None if decides else nn.Linear(found, config.num_labels)
        self.post_init()

    def forward(self, labels: torch.Tensor | None = None, **inputs: Any) -> SequenceClassifierOutput:
        features = self.features(**inputs)
        if self.fusion is None:
            (pair,) = features.values()
            return SequenceClassifierOutput(logits=self._classified(masked_mean(*pair)))
        fused = self.fusion(features)
        if fused.logits_BK is not None:
            return SequenceClassifierOutput(logits=fused.logits_BK)
        return SequenceClassifierOutput(logits=self._classified(fused.pooled_BD))

    def _classified(self, pooled_BD: torch.Tensor) -> torch.Tensor:
        assert self.classifier is not None
        logits_BK: torch.Tensor = self.classifier(self.dropout(pooled_BD))
        return logits_BK


class TowersForContrast(TowersModel):
    """`logits` (B, 2, P): of each row a vector from each tower (Radford et al. 2021, CLIP): the mean of its tokens, one linear layer, length 1;
    those of the first tower times the learned temperature, so that products of the two are the logits of CLIP. 0 where a row lacks the
    modality."""

    def __init__(self, config: TowersConfig) -> None:
        super().__init__(config)
        self.projections = nn.ModuleList(
            nn.Linear(one, config.projection or 128, bias=False) for one in self.widths().values()
        )
        self.scale = Temperature()
        self.post_init()

    def forward(self, labels: torch.Tensor | None = None, **inputs: Any) -> SequenceClassifierOutput:
        vectors = []
        for project, (tokens_BLD, mask_BL) in zip(self.projections, self.features(**inputs).values(), strict=True):
            unit_BP = nn.functional.normalize(project(masked_mean(tokens_BLD, mask_BL)), dim=-1)
            vectors.append(unit_BP * mask_BL.any(1, keepdim=True))
        first, second = vectors
        return SequenceClassifierOutput(logits=torch.stack([self.scale(first), second], dim=1))


class Temperature(nn.Module):
    """exp(log_scale), at most 100; begins at 1 / 0.07 (CLIP, section 2.5)."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor([math.log(1 / 0.07)]))

    def forward(self, vectors_BP: torch.Tensor) -> torch.Tensor:
        return vectors_BP * self.log_scale.clamp(max=math.log(100.0)).exp()


def fused(config: TowersConfig, widths: Mapping[str, int], classes: int | None = None) -> tuple[fusion.Fusion, int]:
    """The fusion that config.json names, and its width."""
    settings = dict(config.fusion or {"kind": "concat", "width": 128})
    found = int(settings.pop("width"))
    settings.pop("modality_dropout", None)  # what training takes away is missing from its inputs already
    return fusion.build(settings.pop("kind"), widths, found, classes=classes, **settings), found


def encoder(values: Mapping[str, Any]) -> nn.Module:
    """A new encoder, without the pooler that nothing here reads: a parameter without gradient would make ranks wait for each other."""
    config = AutoConfig.for_model(**values)
    kind: Any = AutoModel._model_mapping.get(type(config), None)
    if kind is None:
        raise ModelError(f"a model of type {config.model_type} is no encoder that transformers opens by itself")
    pooler = {"add_pooling_layer": False} if "add_pooling_layer" in inspect.signature(kind.__init__).parameters else {}
    made: nn.Module = AutoModel.from_config(config, **pooler)
    if config.model_type == "clip_vision_model":
        made.post_layernorm = nn.Identity()  # of its pooler alone
    return made


def width(tower: nn.Module) -> int:
    """Of the tower's tokens."""
    config: Any = tower.config
    if config.model_type == "mobilenet_v2":
        return int(tower.conv_1x1.convolution.out_channels)  # type: ignore[union-attr]
    if config.model_type == "efficientnet":
        return int(config.hidden_dim)
    for name in ("d_model", "dim", "n_embd", "hidden_size"):
        if isinstance(found := getattr(config, name, None), int):
            return found
    return int(config.hidden_sizes[-1])


def _text(tower: nn.Module, inputs: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    mask_BL = inputs["attention_mask"]
    hidden_BLD = tower(input_ids=inputs["input_ids"], attention_mask=mask_BL).last_hidden_state
    return hidden_BLD, _present(mask_BL.bool(), inputs.get("text_mask"))


def _image(tower: nn.Module, inputs: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Places of the last map are the tokens, as are patches of a Vision Transformer; of several pictures a row each picture is one."""
    if inputs["pixel_values"].ndim == 5:
        return frames(tower, inputs["pixel_values"], inputs.get("image_mask"))
    hidden = tower(pixel_values=inputs["pixel_values"]).last_hidden_state
    hidden_BLD = hidden.flatten(2).transpose(1, 2) if hidden.ndim == 4 else hidden
    mask_BL = torch.ones(hidden_BLD.shape[:2], dtype=torch.bool, device=hidden_BLD.device)
    return hidden_BLD, _present(mask_BL, inputs.get("image_mask"))


def _audio(tower: nn.Module, inputs: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    found = tower(input_values=inputs["input_values"], attention_mask=inputs["audio_mask"])
    return found.last_hidden_state, found.attention_mask


def _series(tower: nn.Module, inputs: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    found = tower(series=inputs["series"], attention_mask=inputs["series_mask"])
    return found.last_hidden_state, found.attention_mask


def _present(mask_BL: torch.Tensor, there_B: torch.Tensor | None) -> torch.Tensor:
    return mask_BL if there_B is None else mask_BL & there_B.bool()[:, None]


Read = Callable[[nn.Module, Mapping[str, torch.Tensor]], tuple[torch.Tensor, torch.Tensor]]
FEATURES: dict[str, Read] = {"text": _text, "image": _image, "audio": _audio, "series": _series}

AutoConfig.register("eagleray_towers", TowersConfig, exist_ok=True)
AutoModel.register(TowersConfig, TowersForContrast, exist_ok=True)
for kind in (AutoModelForSequenceClassification, AutoModelForImageClassification):  # the latter of pictures alone
    kind.register(TowersConfig, TowersForClassification, exist_ok=True)
