"""VGG with 11, 13, 16 or 19 layers: "Very Deep Convolutional Networks for Large-Scale Image Recognition" (Simonyan and Zisserman 2014,
arXiv 1409.1556), columns A, B, D and E of table 1, with batch norm where asked. Importing this file registers model_type `vgg`, so that
a saved folder opens with `AutoModel.from_pretrained` or `AutoModelForImageClassification.from_pretrained`.

Outputs have the shapes of transformers' ResNet, so either stands where the other did. The paper's three fully connected layers, 124 of
VGG-16's 138 million parameters, are left out: the head is one layer over the mean of the places (He et al. 2015, arXiv 1512.03385), and
images may have any size from 32 x 32. B images, C channels, H height, W width, K classes."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForImageClassification, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import (
    BaseModelOutputWithPoolingAndNoAttention,
    ImageClassifierOutputWithNoAttention,
)

from models.families import ModelError

# Convolutions of each of the five stages; a stage ends in a pooling that halves the sides. Depth counts the paper's three layers of head.
STAGES: dict[int, tuple[int, ...]] = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}


class VGGConfig(PreTrainedConfig):
    """`depth`: 11, 13, 16 or 19. `hidden_sizes`: channels of the five stages. `dropout`: before the classifier. Raises ModelError."""

    model_type = "vgg"

    depth: int = 16
    batch_norm: bool = False
    num_channels: int = 3
    hidden_sizes: list[int] | tuple[int, ...] = (64, 128, 256, 512, 512)
    dropout: float = 0.0

    def __post_init__(self, **kwargs: Any) -> None:
        if self.depth not in STAGES:
            raise ModelError(f"vgg has depth={self.depth!r}; it is one of {', '.join(map(str, STAGES))}")
        if len(self.hidden_sizes) != 5 or min(self.hidden_sizes) < 1:
            raise ModelError(f"vgg has hidden_sizes={self.hidden_sizes!r}; it needs the channels of five stages")
        self.hidden_sizes = list(self.hidden_sizes)
        super().__post_init__(**kwargs)


class VGGStage(nn.Module):
    """3 x 3 convolutions that keep the sides, each with ReLU, then a pooling that halves them: `(B, C, H, W) -> (B, C', H/2, W/2)`."""

    def __init__(self, inputs: int, outputs: int, depth: int, batch_norm: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for number in range(depth):
            layers.append(nn.Conv2d(outputs if number else inputs, outputs, kernel_size=3, padding=1))
            layers += [nn.BatchNorm2d(outputs)] if batch_norm else []
            layers.append(nn.ReLU())
        self.layers = nn.Sequential(*layers)
        self.pool = nn.MaxPool2d(kernel_size=2, stride=2)

    def forward(self, hidden_BCHW: torch.Tensor) -> torch.Tensor:
        return self.pool(self.layers(hidden_BCHW))


class VGGPreTrainedModel(PreTrainedModel):
    config_class = VGGConfig
    base_model_prefix = "vgg"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    _no_split_modules: ClassVar = ["VGGStage"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Convolutions as in He et al. 2015 (arXiv 1502.01852): the paper could not start from random weights beyond 11 layers. What a
        folder holds is kept: transformers guards the functions of `nn.init` while it loads."""
        super()._init_weights(module)
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class VGGModel(VGGPreTrainedModel):
    """The convolutions. Takes `pixel_values` (B, channels, height, width), normalised; sides that are no multiple of 32 lose the rest."""

    def __init__(self, config: VGGConfig) -> None:
        super().__init__(config)
        widths = [config.num_channels, *config.hidden_sizes]
        self.stages = nn.ModuleList(
            VGGStage(inputs, outputs, depth, config.batch_norm)
            for inputs, outputs, depth in zip(widths, widths[1:], STAGES[config.depth], strict=False)
        )
        self.pooler = nn.AdaptiveAvgPool2d(1)
        self.post_init()

    def forward(
        self,
        pixel_values: torch.Tensor,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **_: Any,
    ) -> Any:
        """`last_hidden_state` (B, C, H/32, W/32), `pooler_output` (B, C, 1, 1) and, where asked, `hidden_states` after each stage, the
        pixels first. Raises ModelError for another number of channels or sides below 32."""
        if (
            pixel_values.ndim != 4
            or pixel_values.shape[1] != self.config.num_channels
            or min(pixel_values.shape[2:]) < 32
        ):
            raise ModelError(
                f"vgg takes pixel_values (B, {self.config.num_channels}, at least 32, at least 32), and got {tuple(pixel_values.shape)}"
            )
        wanted = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        hidden_BCHW = pixel_values
        states = [hidden_BCHW]
        for stage in self.stages:
            hidden_BCHW = stage(hidden_BCHW)
            if wanted:
                states.append(hidden_BCHW)
        output = BaseModelOutputWithPoolingAndNoAttention(
            last_hidden_state=hidden_BCHW,
            pooler_output=self.pooler(hidden_BCHW),
            hidden_states=tuple(states) if wanted else None,
        )
        return output if _as_dict(self.config, return_dict) else output.to_tuple()


class VGGForImageClassification(VGGPreTrainedModel):
    """`logits` (B, K), and `loss` where `labels` (B) are given."""

    def __init__(self, config: VGGConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.vgg = VGGModel(config)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(config.hidden_sizes[-1], config.num_labels)
        self.post_init()

    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **_: Any,
    ) -> Any:
        features = self.vgg(pixel_values, output_hidden_states=output_hidden_states, return_dict=True)
        logits_BK = self.classifier(self.dropout(features.pooler_output.flatten(1)))
        output = ImageClassifierOutputWithNoAttention(
            loss=None if labels is None else self.loss_function(labels, logits_BK, self.config),
            logits=logits_BK,
            hidden_states=features.hidden_states,
        )
        return output if _as_dict(self.config, return_dict) else output.to_tuple()


def _as_dict(config: VGGConfig, asked: bool | None) -> bool:
    return bool(config.return_dict if asked is None else asked)


AutoConfig.register("vgg", VGGConfig, exist_ok=True)
AutoModel.register(VGGConfig, VGGModel, exist_ok=True)
AutoModelForImageClassification.register(VGGConfig, VGGForImageClassification, exist_ok=True)
