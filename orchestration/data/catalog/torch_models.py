"""`python -m orchestration.data.catalog.torch_models NAME FILE FOLDER`: weights of a package -> a folder that transformers opens.
Called by `weights` as a process of its own, so that neither torch and its memory nor what libraries print on import stay with
the command. No pickle is loaded with code; no hub is asked."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def smollm2(source: Path, folder: Path) -> None:
    """GGUF, 4 bits a weight -> bfloat16. The weights are expanded, so what 4 bits lost stays lost."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
    quantised = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.bfloat16)
    config = quantised.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # it would keep the model from being saved
    model = type(quantised)(config).to(torch.bfloat16)
    model.load_state_dict(quantised.state_dict())
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**where).save_pretrained(folder)


def mobilenet(source: Path, folder: Path) -> None:
    """torchvision's MobileNetV2 -> transformers', whose parameters come in the same order, and its image processing. Raises
    ValueError where the installed transformers has another order."""
    import torch

    saved = torch.load(source, map_location="cpu", weights_only=True)  # a pickle with more than tensors is refused
    from transformers import MobileNetV2Config, MobileNetV2ForImageClassification

    # tf_padding and the epsilon are where transformers' defaults, from TensorFlow, differ from torchvision
    model = MobileNetV2ForImageClassification(MobileNetV2Config(tf_padding=False, layer_norm_eps=1e-5, num_labels=1000))
    ours = model.state_dict()
    if [value.shape for value in ours.values()] != [value.shape for value in saved.values()]:
        raise ValueError("the installed transformers orders MobileNetV2's parameters differently")
    model.load_state_dict(dict(zip(ours, saved.values(), strict=True)))
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(IMAGENET, indent=2) + "\n", encoding="utf-8")


IMAGENET = {  # as torchvision evaluates it
    "image_processor_type": "MobileNetV2ImageProcessor",
    "do_resize": True,
    "size": {"shortest_edge": 256},
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}

if __name__ == "__main__":
    {"smollm2": smollm2, "mobilenet": mobilenet}[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
