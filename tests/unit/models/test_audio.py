from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, WhisperFeatureExtractor

from models.audio import AudioConfig, AudioModel, log_mel, mel_filters
from models.families import ModelError
from models.layers import length_mask

RATE = 8000
SMALL: dict[str, Any] = {"rate": RATE, "mels": 20, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


def _model(**changes: Any) -> AudioModel:
    torch.manual_seed(1)
    return AudioModel(AudioConfig(**{**SMALL, **changes})).eval()


def _sound(samples: int, seed: int = 0) -> np.ndarray:
    """int16: two tones that swell, and noise."""
    rng, time_T = np.random.default_rng(seed), np.arange(samples) / RATE
    tones_T = np.sin(2 * np.pi * (300 + 40 * seed) * time_T) * time_T + 0.3 * np.sin(2 * np.pi * 1700 * time_T)
    return (8000 * tones_T + 500 * rng.standard_normal(samples)).clip(-32768, 32767).astype(np.int16)


def _numpy_log_mel(samples: np.ndarray, *, mels: int, fft: int, window: int, hop: int) -> np.ndarray:
    """The spectrogram as its definition says: each frame cut out, each triangle drawn."""
    wave = np.concatenate([np.zeros(fft // 2), samples / 32768.0, np.zeros(fft // 2)])
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    hann = np.concatenate([np.zeros((fft - window) // 2), hann, np.zeros(fft - window - (fft - window) // 2)])
    starts = range(0, len(wave) - fft + 1, hop)
    power_FN = np.stack([np.abs(np.fft.rfft(wave[start : start + fft] * hann)) ** 2 for start in starts], axis=1)

    def hertz(mel: float) -> float:
        return mel * 200 / 3 if mel < 15 else 1000 * math.exp((mel - 15) * math.log(6.4) / 27)

    top = 15 + math.log(RATE / 2 / 1000) * 27 / math.log(6.4)
    edges = [hertz(top * i / (mels + 1)) for i in range(mels + 2)]
    frequencies = np.fft.rfftfreq(fft, 1 / RATE)
    triangles = [
        np.interp(frequencies, edges[i : i + 3], [0, 2 / (edges[i + 2] - edges[i]), 0], left=0, right=0)
        for i in range(mels)
    ]
    energy_MN = np.log10(np.maximum(np.stack(triangles) @ power_FN, 1e-10))
    return (np.maximum(energy_MN, energy_MN.max() - 8.0) + 4.0) / 4.0


@pytest.mark.parametrize(
    ("mels", "fft", "window", "hop"), [(80, 512, 200, 80), (20, 256, 256, 100), (40, 301, 200, 80)]
)
def test_the_spectrogram_is_that_of_plain_numpy(mels: int, fft: int, window: int, hop: int) -> None:
    samples = _sound(3000)
    settings = {"mels": mels, "fft": fft, "window": window, "hop": hop}
    wanted_MN = _numpy_log_mel(samples, **settings)
    found_BMN, frames_B = log_mel(torch.from_numpy(samples)[None], torch.tensor([3000]), rate=RATE, **settings)
    assert found_BMN.shape == (1, mels, 1 + 3000 // hop)
    assert frames_B.tolist() == [1 + 3000 // hop]
    assert np.abs(found_BMN[0].numpy() - wanted_MN[:, : found_BMN.shape[2]]).max() < 1e-4
    assert wanted_MN.std() > 0.1


def test_with_whispers_settings_it_is_whispers_spectrogram() -> None:
    samples = _sound(16000)
    samples[:800] = 0  # Whisper reflects the beginning, here it is silent
    peer = WhisperFeatureExtractor()(samples / 32768.0, sampling_rate=16000, return_tensors="np")["input_features"][0]
    found_BMN, _ = log_mel(torch.from_numpy(samples)[None], torch.tensor([16000]), rate=16000)
    assert np.abs(found_BMN[0, :, :100].numpy() - peer[:, :100]).max() < 1e-4


def test_int16_and_floats_give_the_same() -> None:
    samples = torch.from_numpy(_sound(2000))[None]
    lengths_B = torch.tensor([2000])
    settings = {"rate": RATE, "mels": 20, "fft": 200, "window": 200, "hop": 80}
    assert torch.equal(log_mel(samples, lengths_B, **settings)[0], log_mel(samples / 32768.0, lengths_B, **settings)[0])


def test_a_tone_is_loudest_in_its_own_mel() -> None:
    filters_MF = mel_filters(RATE, 512, 40)
    wave = torch.sin(2 * math.pi * 1500 * torch.arange(4000) / RATE)[None]
    mel_BMN, _ = log_mel(wave, torch.tensor([4000]), rate=RATE, mels=40, fft=512, window=512, hop=80)
    assert int(mel_BMN[0, :, 20].argmax()) == int(filters_MF[:, 1500 * 512 // RATE].argmax())


@pytest.mark.parametrize("length", [1, 79, 80, 81, 159, 160, 320, 1000, 1999, 2000])
def test_a_row_gives_the_same_alone_and_in_a_padded_batch(length: int) -> None:
    model = _model()
    batch = torch.from_numpy(np.stack([_sound(4000, seed=7) * 2, _sound(4000, seed=2), _sound(4000, seed=3)]))
    lengths_B = torch.tensor([4000, length, 0])
    found = model(batch, attention_mask=length_mask(lengths_B, 4000).long())  # sound, not silence, stands on padding
    alone = model(batch[1:2, :length])
    tokens = alone.last_hidden_state.shape[1]
    assert found.attention_mask.sum(1).tolist()[1:] == [tokens, 0]
    assert tokens == math.ceil(math.ceil((1 + length // 80) / 2) / 2)
    assert torch.allclose(found.last_hidden_state[1, :tokens], alone.last_hidden_state[0], atol=1e-5)
    assert torch.allclose(found.pooler_output[1], alone.pooler_output[0], atol=1e-5)
    assert not found.last_hidden_state[~found.attention_mask].any()
    assert not found.pooler_output[2].any()  # a row without sound
    assert alone.attention_mask.all()


def test_a_loud_end_does_not_lift_a_rows_silence_only_because_the_batch_is_longer() -> None:
    waves = torch.zeros(2, 400)
    waves[1, 158] = 1.0  # seen best by a frame that the row alone does not have
    settings = {"rate": RATE, "mels": 20, "fft": 200, "window": 200, "hop": 80}
    found_BMN, frames_B = log_mel(waves, torch.tensor([400, 159]), **settings)
    alone_BMN, _ = log_mel(waves[1:, :159], torch.tensor([159]), **settings)
    assert frames_B.tolist() == [6, 2]
    assert torch.allclose(found_BMN[1, :, :2], alone_BMN[0], atol=1e-5)


def test_the_place_of_a_sound_matters() -> None:
    model, waves = _model(), torch.zeros(2, 3200)
    waves[0, 640:960] = waves[1, 1920:2240] = torch.sin(torch.arange(320) / 4)  # whole tokens apart
    early, late = model(waves).pooler_output
    assert not torch.allclose(early, late, atol=1e-3)


def test_rows_that_sound_different_give_different_vectors() -> None:
    found = _model()(torch.from_numpy(np.stack([_sound(4000, seed=1), _sound(4000, seed=9)]))).pooler_output
    assert float((found[0] - found[1]).detach().abs().max()) > 0.01


def test_a_saved_folder_opens_with_the_auto_class_and_gives_the_same(tmp_path: Path) -> None:
    model = _model(fft=256)
    model.save_pretrained(tmp_path)
    opened = AutoModel.from_pretrained(tmp_path)
    assert type(opened) is AudioModel
    samples = torch.from_numpy(_sound(2000))[None]
    assert torch.equal(opened.eval()(samples).last_hidden_state, model(samples).last_hidden_state)
    assert opened.config.transform == 256


def test_all_runs_on_the_inputs_device() -> None:
    """The meta device stands for a GPU: a tensor left on the CPU would be refused."""
    samples = torch.zeros(2, 900, dtype=torch.int16, device="meta")
    found = _model().to("meta")(samples, attention_mask=torch.ones(2, 900, device="meta"))
    assert found.last_hidden_state.device.type == "meta"


def test_in_bf16_the_spectrogram_stays_fp32() -> None:
    model, samples = _model(), torch.from_numpy(_sound(2000))[None]
    wanted = model(samples).pooler_output
    found = model.bfloat16()(samples).pooler_output
    assert found.dtype == torch.bfloat16
    assert torch.allclose(found.float(), wanted, atol=0.15)


def test_it_learns_to_tell_tones_apart_and_every_parameter_gets_a_gradient() -> None:
    torch.manual_seed(2)
    model = _model(dropout=0.0).train()
    head = torch.nn.Linear(16, 2)
    labels_B = torch.tensor([0, 1] * 4)
    time_T = torch.arange(800) / RATE
    waves = torch.sin(2 * math.pi * (400 + 800 * labels_B[:, None]) * time_T) + 0.1 * torch.randn(8, 800)
    optimizer = torch.optim.AdamW([*model.parameters(), *head.parameters()], lr=3e-3)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(head(model(waves).pooler_output), labels_B)
        loss.backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.1 * losses[0]


def test_settings_and_samples_that_do_not_fit_are_refused_by_name() -> None:
    with pytest.raises(
        ModelError, match=r"of 160 mels are empty at rate=8000 and fft=200; use fewer mels or a larger fft"
    ):
        AudioConfig(rate=8000, mels=160)
    assert AudioConfig(rate=8000, mels=160, fft=512).transform == 512
    with pytest.raises(ModelError, match="at least the window's 400"):
        AudioConfig(fft=256)
    with pytest.raises(ModelError, match=r"int16 or float, and got \(1, 9\) of torch.int64"):
        _model()(torch.zeros(1, 9, dtype=torch.int64))
    with pytest.raises(ModelError, match="mask of"):
        _model()(torch.zeros(1, 900), attention_mask=torch.ones(1, 800))
