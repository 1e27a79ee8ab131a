from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow.parquet as pq
import pytest

from orchestration.data import vocabulary
from orchestration.data.catalog import local
from orchestration.data.config import FimConfig, TokenizeConfig
from orchestration.data.tokenize import FILES, Tokenizer
from orchestration.data.unigram import learn
from orchestration.data.vocabulary import Report, report, train
from orchestration.errors import UserError

KINDS = get_args(vocabulary.Kind)
CHINESE = [
    "床前明月光，疑是地上霜。",
    "举头望明月，低头思故乡。",
    "白日依山尽，黄河入海流。",
    "欲穷千里目，更上一层楼。",
] * 20


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return pq.read_table(local("catalog:vader-sentiment"))["text"].to_pylist()[::6]


@pytest.fixture(scope="module")
def trained(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Report]]:
    made = {}
    for kind in KINDS:
        folder = tmp_path_factory.mktemp(kind)
        made[kind] = (folder, train(iter(texts), kind=kind, size=1500, lowercase=True, folder=folder))
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_ours_and_transformers_load_it_alike(
    kind: str, trained: dict[str, tuple[Path, Report]], texts: list[str]
) -> None:
    from transformers import AutoTokenizer

    folder, _ = trained[kind]
    theirs = AutoTokenizer.from_pretrained(folder)
    ours = Tokenizer(folder, 64)
    given = [*texts[::5], "", "Naïve ﬁle 東京 😀  two  spaces\n\nlines 2024"]
    assert ours.encode(given) == theirs(given, truncation=True, max_length=64)["input_ids"]
    assert ours.vocab_size == len(theirs)
    assert ours.pad_id == theirs.pad_token_id
    for name, token in vocabulary.SPECIAL[kind].items():
        assert getattr(theirs, name) == token
    assert ours._rule is not None  # it is one of the families that need not ask the library
    ids = theirs("the film was good")["input_ids"]
    assert theirs.decode(ids, skip_special_tokens=True).strip() == "the film was good"


@pytest.mark.parametrize("kind", KINDS)
def test_the_report_counts_what_the_tokenizer_does(
    kind: str, trained: dict[str, tuple[Path, Report]], texts: list[str]
) -> None:
    folder, found = trained[kind]
    assert asdict(report(folder, texts)) == asdict(found)
    assert found.vocabulary == 1500
    assert found.texts == len(texts)
    assert found.words == sum(len(text.split()) for text in texts)
    assert found.characters == sum(map(len, texts))
    tokenizer = Tokenizer(folder, 10**6)
    entries = tokenizer.entries(texts, TokenizeConfig(max_length=131_072))
    frame = 0 if kind == "bpe" else 2 * len(texts)
    assert found.tokens == len(entries.values_T) - frame
    assert found.fertility == found.tokens / found.words
    assert 1.0 < found.fertility < 2.0
    assert found.tokens_per_character == found.tokens / found.characters
    assert found.unknown_share < 0.001
    assert 0.8 < found.used_share <= 1.0
    assert len(found.longest) == 10
    assert len(found.longest[0]) >= len(found.longest[-1]) >= 6
    assert len(found.examples) == 3
    shown = "".join(found.examples[0]).replace("##", "").replace("▁", "").replace(" ", "")
    assert shown == texts[0].lower().replace(" ", "")


def test_a_larger_vocabulary_needs_fewer_tokens(texts: list[str], tmp_path: Path) -> None:
    small = train(texts[:1000], kind="bpe", size=400, folder=tmp_path / "a")
    large = train(texts[:1000], kind="bpe", size=2000, folder=tmp_path / "b")
    assert large.fertility < 0.7 * small.fertility


SCRIPT = """
import hashlib, sys
from pathlib import Path
import pyarrow.parquet as pq
from orchestration.data.vocabulary import train
texts = pq.read_table(sys.argv[1])["text"].to_pylist()[::30]
for kind, size in (("bpe", 900), ("wordpiece", 900), ("wordpiece", 130), ("unigram", 900)):
    folder = Path(sys.argv[2]) / f"{kind}-{size}"
    train(iter(texts), kind=kind, size=size, folder=folder)
    print(*(hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in sys.argv[3:]))
"""


def test_the_same_texts_give_the_same_bytes_in_any_process_with_any_number_of_threads(tmp_path: Path) -> None:
    source = str(local("catalog:vader-sentiment"))
    outputs = []
    for i, threads in enumerate(("1", "2")):  # each process seeds the library's hash maps anew
        command = [sys.executable, "-c", SCRIPT, source, str(tmp_path / str(i)), *FILES]
        environment = {"RAYON_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "true", "PYTHONHASHSEED": str(i)}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=Path.cwd())
        outputs.append(done.stdout.split())
    assert len(outputs[0]) == 12
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize("kind", KINDS)
def test_chinese_texts_are_measured_by_the_character(kind: str, tmp_path: Path) -> None:
    size = 400 if kind == "bpe" else 120
    found = train(iter(CHINESE), kind=kind, size=size, folder=tmp_path)
    assert found.words == sum(len(text) for text in CHINESE)  # each character, and each run of punctuation
    assert found.unknown_share == 0.0
    assert found.fertility < 1.2
    given = [*CHINESE[:4], "明月几时有？", "a 月 b"]
    assert [len(row) for row in Tokenizer(tmp_path, 64).encode(given)]


@pytest.mark.parametrize("kind", ["wordpiece", "unigram"])
def test_letters_that_a_small_vocabulary_cannot_hold_are_unknown_and_counted(
    kind: str, texts: list[str], tmp_path: Path
) -> None:
    found = train(texts[:500], kind=kind, size=60, folder=tmp_path)
    assert found.vocabulary <= 60
    assert 0.001 < found.unknown_share < 0.5


def test_tokens_for_filling_in_the_middle_can_be_asked_for(texts: list[str], tmp_path: Path) -> None:
    train(texts[:300], kind="bpe", size=500, special=FimConfig().tokens, folder=tmp_path)
    config = TokenizeConfig(max_length=64, fim=FimConfig(rate=1.0))
    entries = Tokenizer(tmp_path, 64).entries(texts[:5], config, list(range(5)))
    assert set(np.unique(entries.values_T)) >= {1, 2, 3}


def test_what_cannot_be_trained_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no text to train a tokenizer on"):
        train(iter([]), kind="bpe", size=500, folder=tmp_path)
    with pytest.raises(UserError, match="size=200: a bpe vocabulary with 1 special tokens needs at least 257"):
        train(["a"], kind="bpe", size=200, folder=tmp_path)
    assert not (tmp_path / "tokenizer.json").exists()


def test_files_say_what_transformers_needs_and_no_more(trained: dict[str, tuple[Path, Report]]) -> None:
    folder, _ = trained["wordpiece"]
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    added = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    assert [token["content"] for token in added] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert [token["id"] for token in added] == [0, 1, 2, 3, 4]


def test_unigram_needs_no_more_tokens_than_the_librarys_own_trainer(texts: list[str], tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Fast
    from tokenizers import models, pre_tokenizers, trainers

    theirs = Fast(models.Unigram())
    theirs.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.UnigramTrainer(vocab_size=1000, special_tokens=special, unk_token="<unk>", show_progress=False)
    theirs.train_from_iterator(iter(texts[:2000]), trainer=trainer)
    train(texts[:2000], kind="unigram", size=1000, folder=tmp_path)
    unseen = texts[2000:3000]
    expected = sum(len(encoding) for encoding in theirs.encode_batch(unseen))
    assert report(tmp_path, unseen).tokens < 1.01 * expected


def test_unigram_finds_the_parts_that_words_are_made_of() -> None:
    colours, animals = ["red", "blue", "green", "white", "black"], ["cat", "dog", "hound", "mouse", "snake"]
    counts = Counter({f"▁{colour}{animal}": 1 for colour in colours for animal in animals})
    letters = {letter for word in counts for letter in word}
    found = dict(learn(counts, size=len(letters) + 10))
    assert {f"▁{colour}" for colour in colours} <= set(found)
    assert set(animals) <= set(found)
    assert letters <= set(found)
    assert 0.9 < sum(np.exp(score) for score in found.values()) < 1.0 + 1e-9
    with pytest.raises(ValueError, match="letters do not fit into 5 pieces"):
        learn(counts, size=5)
