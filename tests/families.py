"""A small configuration of every family, for tests of what holds for all of them."""

from __future__ import annotations

from typing import Any

_BERT = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "vocab_size": 20,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SMALL: dict[str, dict[str, Any]] = {
    "bert": _BERT,
    "roberta": {**_BERT, "pad_token_id": 1},
    "distilbert": {"dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 16, "vocab_size": 20},
    "xlnet": {"d_model": 16, "n_layer": 3, "n_head": 2, "d_inner": 16, "vocab_size": 20},
    "gpt2": {
        "n_embd": 16,
        "n_layer": 3,
        "n_head": 2,
        "n_inner": 16,
        "vocab_size": 20,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
    "llama": {**_BERT, "num_key_value_heads": 2},
    "t5": {
        "d_model": 16,
        "num_layers": 3,
        "num_heads": 2,
        "d_ff": 16,
        "d_kv": 8,
        "vocab_size": 20,
        "pad_token_id": 0,
        "eos_token_id": 2,
        "decoder_start_token_id": 0,
    },
    "bart": {
        "d_model": 16,
        "encoder_layers": 3,
        "decoder_layers": 2,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 16,
        "decoder_ffn_dim": 16,
        "vocab_size": 20,
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 2,
    },
}
IMAGES: dict[str, dict[str, Any]] = {
    "vit": {
        "hidden_size": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "image_size": 16,
        "patch_size": 8,
    },
    "resnet": {"embedding_size": 8, "hidden_sizes": [8, 8, 8], "depths": [1, 1, 1]},
    "mobilenet_v2": {"image_size": 16, "depth_multiplier": 0.25},
    "efficientnet": {"width_coefficient": 0.1, "depth_coefficient": 0.1, "image_size": 16},
}
