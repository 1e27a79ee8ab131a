"""A training job small enough to run in a second: a two-layer BERT of width 32 and a sealed token store of made-up rows, whose
label is whether low or high token ids prevail. Real files in a real storage root, made by the product's own writers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from models.config import AdapterConfig, ModelConfig
from models.tasks.rows import Classification
from orchestration.data.shards import Columns, write_shard
from orchestration.data.store import SPLITS
from orchestration.storage import Storage
from orchestration.training.config import TrainConfig
from orchestration.training.job import TrainJob

VOCABULARY = 64
LABELS = ("negative", "positive")
BERT = {
    "model_type": "bert",
    "architectures": ["BertModel"],
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
}


def row_task() -> Classification:
    """The task of `make_job`, for tests that make a feed by themselves."""
    return Classification(ModelConfig(path="tiny"), LABELS, Path("tiny"))


def make_weights(storage: Storage, rel: str = "weights/tiny", config: dict[str, Any] | None = None) -> str:
    """A sealed model folder, without head, drawn from seed 0."""
    import torch
    from transformers import AutoConfig, AutoModel

    aside = storage.staging()
    values = dict(config or BERT)
    torch.manual_seed(0)
    AutoModel.from_config(AutoConfig.for_model(**values)).save_pretrained(aside)
    (aside / "config.json").write_text(json.dumps(values), encoding="utf-8")
    storage.commit(rel, aside, {})
    return rel


def make_store(
    storage: Storage,
    *,
    train: int = 90,
    validation: int = 24,
    rel: str = "stores/tiny",
    labels: Sequence[str] = LABELS,
    pairs: bool = False,
) -> str:
    """A sealed store of `train` and `validation` rows of 4 to 24 tokens. `pairs`: the second half of each is a second text."""
    aside = storage.staging()
    splits, start = {}, 0
    for split, count in zip(SPLITS, (train, validation, 8), strict=True):
        rows = [_row(start + i) for i in range(count)]
        texts = [" ".join(map(str, ids)) for ids, _ in rows]
        made = columns([ids for ids, _ in rows], [label for _, label in rows], texts, first=start)
        if pairs:
            made = replace(made, targets={"pair_at": np.diff(made.offsets_E1) // 2})
        write_shard(aside / f"{split}.arrow", made)
        np.save(aside / f"{split}.order.npy", np.arange(count, dtype=np.int64))
        splits[split] = {"shards": [f"{split}.arrow"]}
        start += count
    meta = {
        "address": f"tiny-{train}-{validation}" + ("-pairs" if pairs else ""),
        **({"targets": ["pair_at"]} if pairs else {}),
        "labels": list(labels),
        "report": {},
        "preprocessing": {},
        "splits": splits,
    }
    storage.commit(rel, aside, meta)
    return rel


def columns(
    ids: Sequence[Sequence[int]],
    labels: Sequence[int],
    texts: Sequence[str],
    copies: Sequence[int] | None = None,
    first: int = 0,
) -> Columns:
    """What `write_shard` takes; entry i has row id `first + i`."""
    return Columns(
        row_ids=[(first + i).to_bytes(16, "big") for i in range(len(ids))],
        copies=None if copies is None else np.array(copies, np.int64),
        labels=np.array(labels, np.int64),
        values_T=np.array([token for row in ids for token in row], np.int64),
        offsets_E1=np.cumsum([0, *map(len, ids)]),
        texts=list(texts),
    )


def _row(number: int) -> tuple[list[int], int]:
    draw = np.random.Generator(np.random.PCG64(number))
    label = int(draw.integers(2))
    ids = draw.integers(2, 34 if label == 0 else VOCABULARY, size=int(draw.integers(4, 25)))
    return [1, *ids.tolist()], label


def make_job(
    root: Path,
    *,
    run: str = "one",
    dropout: float | None = 0.0,
    world: int = 1,
    checkpoints: bool = True,
    adapter: str | None = None,
    model: dict[str, Any] | None = None,
    **train: Any,
) -> TrainJob:
    """A job over `root`, whose weights and store are made once. `adapter`: the kind of one; `model`: more keys of that part. Other
    keyword arguments go into the `train` part."""
    storage = Storage(str(root))
    if storage.manifest("weights/tiny") is None:
        make_weights(storage)
    if storage.manifest("stores/tiny") is None:
        make_store(storage)
    chosen: dict[str, Any] = {
        "epochs": 1,
        "batch": 12,
        "report_every": 1,
        "optimizer": {"lr": 2e-3},
        "layers": {"decay": 0.9},
        **train,
    }
    return TrainJob(
        train=TrainConfig.model_validate(chosen, strict=True),
        model=ModelConfig(
            path="tiny", dropout=dropout, adapter=AdapterConfig(kind=adapter) if adapter else None, **model or {}
        ),  # type: ignore[arg-type]
        labels=LABELS,
        seed=7,
        storage_url=str(root),
        weights_rel="weights/tiny",
        store_rel="stores/tiny",
        run_rel=f"runs/{run}",
        world=world,
        threads=1,
        checkpoints=checkpoints,
    )


TOKENIZERS = ("bert", "roberta", "t5", "gpt2")  # by what their post_processor puts around texts; gpt2: nothing
_SENTENCES = (
    "Ada Lovelace was born in London and wrote of engines that weave algebraic patterns.",
    "Das Café in Zürich öffnet um acht; naïve Gäste kommen früher. Où est la gare?",
    "東京 is the capital of Japan, 北京 that of China. Prices rose 3.5% in 2024!",
)


def make_tokenizer(folder: Path, kind: str) -> Path:
    """A folder with the tokenizer.json of one family, trained here on three sentences."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    if kind == "bert":
        fast = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        fast.normalizer, fast.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
        trainer: Any = trainers.WordPieceTrainer(vocab_size=180, show_progress=False, special_tokens=special)
    elif kind == "t5":
        fast = Tokenizer(models.Unigram())
        fast.normalizer, fast.pre_tokenizer = normalizers.NFKC(), pre_tokenizers.Metaspace()
        special = ["<pad>", "</s>", "<unk>"]
        trainer = trainers.UnigramTrainer(
            vocab_size=120, show_progress=False, special_tokens=special, unk_token="<unk>"
        )
    else:
        fast = Tokenizer(models.BPE())
        fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        special = ["<pad>", "</s>", "<s>"] if kind == "roberta" else ["<|endoftext|>"]
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=340, show_progress=False, special_tokens=special, initial_alphabet=alphabet
        )
    fast.train_from_iterator(iter(_SENTENCES * 3), trainer=trainer)
    marks = [(name, number) for number, name in enumerate(special)]
    if kind == "bert":
        fast.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=marks[2:]
        )
    elif kind == "t5":
        fast.post_processor = processors.TemplateProcessing(
            single="$A </s>", pair="$A </s> $B </s>", special_tokens=marks[1:2]
        )
    elif kind == "roberta":
        fast.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 2), add_prefix_space=False)
    else:
        fast.post_processor = processors.ByteLevel(trim_offsets=True)
    folder.mkdir(parents=True, exist_ok=True)
    fast.save(str(folder / "tokenizer.json"))
    return folder
