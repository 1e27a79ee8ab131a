from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from orchestration.data.catalog import local
from orchestration.data.tokenize import Tokenizer
from orchestration.errors import UserError


def test_ids_equal_those_of_transformers_on_real_texts(minilm: Path) -> None:
    from transformers import AutoTokenizer

    texts = pq.read_table(local("catalog:vader-sentiment"))["text"].to_pylist()[::10]
    texts += ["", "naïve café 東京 😀", "word " * 500]
    theirs = AutoTokenizer.from_pretrained(minilm)
    ours = Tokenizer(minilm, 48)
    assert ours.encode(texts) == theirs(texts, truncation=True, max_length=48)["input_ids"]
    assert ours.pad_id == theirs.pad_token_id
    assert ours.vocab_size == len(theirs)


def test_longer_texts_are_cut_with_their_end_token_and_counted(minilm: Path) -> None:
    tokenizer = Tokenizer(minilm, 8)
    ids = tokenizer.encode(["one two three four five six", "one two three four five six seven", "short"])
    assert [len(row) for row in ids] == [8, 8, 3]
    assert tokenizer.truncated == 1
    assert ids[0][-1] == ids[1][-1]  # [SEP]


def test_a_folder_without_a_usable_tokenizer_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tokenizer\.json: missing"):
        Tokenizer(tmp_path, 8)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"tokenizer\.json: not a tokenizer file"):
        Tokenizer(tmp_path, 8)
