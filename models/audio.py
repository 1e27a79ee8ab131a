"""Sound to tokens: a log-mel spectrogram and a small encoder on it, built as Whisper's ("Robust Speech Recognition via Large-Scale Weak
Supervision", Radford et al. 2022, arXiv 2212.04356): two convolutions, sinusoidal positions, pre-norm Transformer layers. Takes samples
as the store holds them (int16 mono) or floats in -1..1, padded on the right; gives tokens, their mask and a vector a row. Importing this
file registers model_type `eagleray_audio`. The spectrogram is part of the model, so training and endpoint cannot differ in it.

What stands on padding never matters: a row gives the same alone and in a longer batch.
B rows, T samples, N frames of the spectrogram, M mels, F frequencies, L tokens, D width."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel

from models.families import ModelError
from models.layers import EncoderOutput, Stack, draw, length_mask, masked_mean
from models.reference import positions

INT16 = 32768.0  # full scale of 16-bit samples
FLOOR = 1e-10  # of a mel's energy, so that silence has a logarithm
RANGE = 8.0  # decades below a row's loudest mel that are kept (80 dB)


def mel_filters(rate: int, fft: int, mels: int) -> torch.Tensor:
    """`filter_MF`, fp64: triangles that are evenly spaced in mels from 0 to rate / 2, each of area 1 over its width in Hz. The scale is
    Slaney's (Auditory Toolbox, 1998): linear to 1000 Hz, logarithmic above. Raises ModelError where a triangle falls between two
    frequencies of the transform, since its mel would be silent for every sound."""
    top = _to_mel(rate / 2)
    edge_M2 = torch.tensor([_to_hz(top * i / (mels + 1)) for i in range(mels + 2)], dtype=torch.float64)
    frequency_F = torch.arange(fft // 2 + 1, dtype=torch.float64) * rate / fft
    low_M1, middle_M1, high_M1 = edge_M2[:-2, None], edge_M2[1:-1, None], edge_M2[2:, None]
    rising_MF = (frequency_F - low_M1) / (middle_M1 - low_M1)
    falling_MF = (high_M1 - frequency_F) / (high_M1 - middle_M1)
    filter_MF = torch.minimum(rising_MF, falling_MF).clamp(min=0) * 2 / (high_M1 - low_M1)
    silent = int((filter_MF.sum(1) == 0).sum())
    if silent:
        raise ModelError(
            f"{silent} of {mels} mels are empty at rate={rate} and fft={fft}; use fewer mels or a larger fft"
        )
    return filter_MF


def log_mel(
    samples_BT: torch.Tensor,
    lengths_B: torch.Tensor,
    *,
    rate: int,
    mels: int = 80,
    fft: int = 400,
    window: int = 400,
    hop: int = 160,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`mel_BMN` (fp32) and `frames_B`, how many frames each row has: 1 + length // hop, 0 for a row of length 0; frames beyond are 0.

    Frame n is centred on sample n x hop, with zeros around the row; Hann window, power, mels, log10, cut 8 decades below the row's
    loudest mel, then (x + 4) / 4: Whisper's scale. `window`, `hop`, `fft`: samples. Integers are divided by 32768, floats are taken
    as they are. Raises ModelError for other shapes or integers other than int16."""
    if samples_BT.ndim != 2 or (not samples_BT.is_floating_point() and samples_BT.dtype != torch.int16):
        raise ModelError(
            f"audio takes samples (B, T), int16 or float, and got {tuple(samples_BT.shape)} of {samples_BT.dtype}"
        )
    scale = 1.0 if samples_BT.is_floating_point() else INT16
    there_BT = length_mask(lengths_B, samples_BT.shape[1])
    wave_BT = (samples_BT.float() / scale).masked_fill(~there_BT, 0.0)
    hann_W = torch.hann_window(window, device=wave_BT.device)
    # Zeros around, not reflection: what a row's last frame sees must not depend on the batch's length
    spectrum_BFN = torch.stft(wave_BT, fft, hop, window, hann_W, pad_mode="constant", return_complex=True)
    energy_BMN = mel_filters(rate, fft, mels).to(wave_BT) @ spectrum_BFN.abs().square()
    frames_B = torch.where(lengths_B > 0, 1 + lengths_B // hop, 0)
    there_B1N = length_mask(frames_B, energy_BMN.shape[2])[:, None]
    log_BMN = energy_BMN.clamp(min=FLOOR).log10()
    loudest_B11 = log_BMN.masked_fill(~there_B1N, -math.inf).amax((1, 2), keepdim=True)
    mel_BMN = (torch.maximum(log_BMN, loudest_B11 - RANGE) + 4.0) / 4.0
    return mel_BMN.masked_fill(~there_B1N, 0.0), frames_B


class AudioConfig(PreTrainedConfig):
    """`rate`: samples a second. `window_s`, `hop_s`: of the spectrogram, seconds. `fft`: samples, None = the window's; larger where many
    mels need finer frequencies. A token is 4 hops. Raises ModelError for parts that do not fit each other."""

    model_type = "eagleray_audio"

    rate: int = 16000
    mels: int = 80
    window_s: float = 0.025
    hop_s: float = 0.01
    fft: int | None = None
    hidden_size: int = 256
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    intermediate_size: int | None = None
    dropout: float = 0.1

    def __post_init__(self, **kwargs: Any) -> None:
        if self.window < 1 or self.hop < 1 or self.transform < self.window:
            raise ModelError(
                f"audio has window_s={self.window_s}, hop_s={self.hop_s} and fft={self.fft} at rate={self.rate}: window and hop need a sample, "
                f"fft at least the window's {self.window}"
            )
        with torch.device("cpu"):  # where a model is laid out without weights too
            mel_filters(self.rate, self.transform, self.mels)  # refuses empty mels before any sound is read
        super().__post_init__(**kwargs)

    @property
    def window(self) -> int:
        """Samples."""
        return round(self.window_s * self.rate)

    @property
    def hop(self) -> int:
        """Samples."""
        return round(self.hop_s * self.rate)

    @property
    def transform(self) -> int:
        """Samples of the Fourier transform."""
        return self.fft or self.window


class AudioModel(PreTrainedModel):
    """Takes `input_values` (B, T) and `attention_mask` (B, T), 1 for samples and then 0; gives `EncoderOutput`."""

    config_class = AudioConfig
    base_model_prefix = "audio"
    main_input_name = "input_values"

    def __init__(self, config: AudioConfig) -> None:
        super().__init__(config)
        width = config.hidden_size
        self.convolutions = nn.ModuleList(
            nn.Conv1d(inputs, width, kernel_size=3, stride=2, padding=1) for inputs in (config.mels, width)
        )
        self.stack = Stack(
            width, config.num_attention_heads, config.num_hidden_layers, config.intermediate_size, config.dropout
        )
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        draw(module)

    def forward(
        self, input_values: torch.Tensor, attention_mask: torch.Tensor | None = None, **_: Any
    ) -> EncoderOutput:
        """`last_hidden_state` (B, L, D), `pooler_output` (B, D), `attention_mask` (B, L). Raises ModelError as `log_mel`."""
        lengths_B = _lengths(input_values, attention_mask)
        mel_BMN, frames_B = self.spectrogram(input_values, lengths_B)
        hidden_BDL = mel_BMN.to(self.dtype)
        for convolution in self.convolutions:
            frames_B = (frames_B + 1) // 2
            hidden_BDL = nn.functional.gelu(convolution(hidden_BDL))
            mask_BL = length_mask(frames_B, hidden_BDL.shape[2])
            # The next convolution reads one past the end: there must be what a row alone has there, zeros
            hidden_BDL = hidden_BDL.masked_fill(~mask_BL[:, None], 0.0)
        hidden_BLD = hidden_BDL.transpose(1, 2)
        hidden_BLD = hidden_BLD + positions(*hidden_BLD.shape[1:]).to(hidden_BLD)
        hidden_BLD = self.stack(hidden_BLD, mask_BL)
        return EncoderOutput(hidden_BLD, masked_mean(hidden_BLD, mask_BL), mask_BL)

    def spectrogram(self, samples_BT: torch.Tensor, lengths_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`log_mel` with the model's settings."""
        settings = self.config
        return log_mel(
            samples_BT,
            lengths_B,
            rate=settings.rate,
            mels=settings.mels,
            fft=settings.transform,
            window=settings.window,
            hop=settings.hop,
        )


def _lengths(values_BT: torch.Tensor, mask_BT: torch.Tensor | None) -> torch.Tensor:
    if mask_BT is None:
        return torch.full(values_BT.shape[:1], values_BT.shape[-1], device=values_BT.device)
    if mask_BT.shape != values_BT.shape:
        raise ModelError(f"audio of shape {tuple(values_BT.shape)} came with a mask of {tuple(mask_BT.shape)}")
    return mask_BT.long().sum(1)


def _to_mel(hertz: float) -> float:
    """3 mels are 200 Hz up to 1000 Hz (15 mels); above, 27 mels are a factor of 6.4."""
    return hertz * 3 / 200 if hertz < 1000 else 15 + 27 * math.log(hertz / 1000) / math.log(6.4)


def _to_hz(mel: float) -> float:
    return mel * 200 / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)


AutoConfig.register("eagleray_audio", AudioConfig, exist_ok=True)
AutoModel.register(AudioConfig, AudioModel, exist_ok=True)
