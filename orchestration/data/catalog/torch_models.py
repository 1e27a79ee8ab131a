"""`python -m orchestration.data.catalog.torch_models NAME FILE FOLDER`: weights of a package -> a folder that transformers opens.
Called by `weights` as a process of its own, so that neither torch and its memory nor what libraries print on import stay with
the command. No pickle is run, no hub is asked."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

from orchestration.data.catalog import pickled


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
    saved = tensors(source)  # before the import: a file with more than tensors is refused at once
    import torch
    from transformers import MobileNetV2Config, MobileNetV2ForImageClassification

    # tf_padding and the epsilon are where transformers' defaults, from TensorFlow, differ from torchvision
    model = MobileNetV2ForImageClassification(MobileNetV2Config(tf_padding=False, layer_norm_eps=1e-5, num_labels=1000))
    ours = model.state_dict()
    if [tuple(value.shape) for value in ours.values()] != [value.shape for value in saved.values()]:
        raise ValueError("the installed transformers orders MobileNetV2's parameters differently")
    model.load_state_dict({name: torch.from_numpy(value) for name, value in zip(ours, saved.values(), strict=True)})
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(IMAGENET, indent=2) + "\n", encoding="utf-8")


def tensors(source: Path) -> dict[str, Any]:
    """Name -> numpy array of a state dict in the format of torch before 1.6: four pickles (a magic number, a version, facts of the
    machine, the tensors as views of storages), a fifth with the storages' keys, then for each its length and its numbers.

    Raises ValueError for a file of another kind, or with anything but tensors in it.
    """
    import numpy as np

    kinds = {"torch FloatStorage": np.float32, "torch LongStorage": np.int64}
    dtypes: dict[str, Any] = {}

    def storage(kind: str, dtype: Any, key: str, *_: Any) -> str:
        dtypes[key] = dtype
        return key

    names: pickled.Known = {
        "collections OrderedDict": dict,
        "torch._utils _rebuild_tensor_v2": lambda *view: view[:4],
        **kinds,
    }
    with open(source, "rb") as handle:
        if pickled.load(handle, {}) != MAGIC:
            raise ValueError(f"{source.name} is not a file of tensors")
        for _ in ("version", "machine"):
            pickled.load(handle, {})
        views = pickled.load(handle, names, lambda reference: storage(*reference))
        storages = {}
        for key in pickled.load(handle, {}):
            count = int.from_bytes(handle.read(8), "little")
            storages[key] = np.frombuffer(handle.read(count * np.dtype(dtypes[key]).itemsize), dtypes[key])
    return {name: _viewed(storages[key], *view) for name, (key, *view) in views.items()}


def _viewed(numbers: Any, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> Any:
    """A tensor as an array of its own; torch counts strides in numbers."""
    array = numbers[offset : offset + math.prod(shape)].reshape(shape)
    if shape and tuple(stride // array.itemsize for stride in array.strides) != tuple(strides):
        raise ValueError("a tensor is not stored row by row")
    return array.copy()


MAGIC = 0x1950A86A20F9469CFC6C
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
