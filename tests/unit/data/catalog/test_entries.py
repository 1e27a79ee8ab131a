"""Entries whose packages are small, fetched as a user would. What every entry holds is checked by `make catalogue`, which downloads
hundreds of megabytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from orchestration.data import catalog
from orchestration.errors import UserError
from orchestration.storage import describe

ROOT = Path(catalog.__file__).parents[3]


def test_the_corpus_holds_what_its_description_says() -> None:
    table = pq.read_table(catalog.local("catalog:vader-sentiment"))
    assert table.column_names == ["text", "score", "part", "id"]
    assert table.num_rows == 23_703
    assert pc.sum(pc.greater(table["score"], 0)).as_py() == 12_471
    assert pc.sum(pc.less(table["score"], 0)).as_py() == 10_849
    assert sorted(item["counts"] for item in table["part"].value_counts().to_pylist()) == [3708, 4200, 5190, 10_605]
    assert len(pc.unique(table["text"])) == 23_619


def test_the_model_folder_holds_weights_config_and_tokenizer(minilm: Path) -> None:
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= set(os.listdir(minilm))
    assert (minilm / "model.safetensors").stat().st_size == 90_868_376


def test_the_word_net_folder_is_complete() -> None:
    folder = catalog.local("catalog:wordnet")
    lines = [
        line for part in ("noun", "verb", "adj", "adv") for line in (folder / f"data.{part}").read_bytes().split(b"\n")
    ]
    assert sum(line[:8].isdigit() for line in lines) == 117_659


def test_the_chinese_thesaurus_has_its_sets_of_synonyms() -> None:
    lines = catalog.local("catalog:cilin").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 17_817
    assert sum(line.split(" ", 1)[0].endswith("=") for line in lines) == 9995
    assert lines[0] == "Aa01A01= 人 士 人物 人士 人氏 人选"


def test_the_knowledge_graph_keeps_its_splits() -> None:
    table = pq.read_table(catalog.local("umls"))
    counts = {item["values"]: item["counts"] for item in table["split"].value_counts().to_pylist()}
    assert counts == {"train": 5216, "validation": 652, "test": 661}
    assert not any(set(row.values()) & {"", None} for row in table.to_pylist())


def test_the_standard_library_comes_from_this_machine_and_its_tests_stay_behind() -> None:
    folder = catalog.local("python-library")
    assert (folder / "json" / "decoder.py").read_bytes() == Path(json.decoder.__file__).read_bytes()
    assert not (folder / "test").exists()
    assert not list(folder.rglob("site-packages"))
    assert sum(path.stat().st_size for path in folder.rglob("*.py")) > 8_000_000


def test_a_conversion_gives_the_same_bytes_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sums = []
    for cache in ("one", "two"):
        monkeypatch.setenv("EAGLERAY_CACHE", str(tmp_path / cache))
        sums.append(describe(catalog.local("umls"))["sha256"])
    assert sums[0] == sums[1]


def test_a_second_call_fetches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    path = catalog.local("vader-sentiment")
    before = describe(path)

    def refuse(item: catalog.Entry) -> None:
        raise AssertionError("fetched again")

    monkeypatch.setattr(catalog, "_fetch", refuse)
    assert catalog.local("catalog:vader-sentiment") == path == catalog.fetched("vader-sentiment")
    assert describe(path) == before


def test_every_entry_is_complete_and_its_archives_are_pinned() -> None:
    for name, item in catalog.ENTRIES.items():
        assert name == item.name
        assert item.licence
        assert item.description
        assert item.archives or item.origin
        for archive in item.archives:
            sign = {"npm": "@", "apt": "="}.get(archive.manager, "==")
            assert archive.package.rpartition(sign)[2]
            assert len(bytes.fromhex(archive.sha256)) == 32
            assert archive.bytes > 100_000


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"nearest: wordnet; entries: vader-sentiment, .*, gpt2-tokenizer"):
        catalog.local("catalog:wordnte")


def test_reading_the_names_imports_nothing_heavy() -> None:
    code = (
        "import sys; from orchestration.data import catalog; catalog.entries();"
        "heavy = ('ray', 'torch', 'transformers', 'pyarrow', 'numpy', 'nltk', 'PIL', 'fsspec', 'pandas');"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_one_file_of_a_folder_is_named_behind_a_slash(minilm: Path) -> None:
    assert catalog.local("catalog:minilm/vocab.txt") == minilm / "vocab.txt"
    with pytest.raises(UserError, match=r"minilm/vocab.text: no such file in the entry; nearest: vocab\.txt"):
        catalog.local("minilm/vocab.text")
    for wrong in ("minilm/../x", "vader-sentiment/x"):
        with pytest.raises(UserError, match="is not a folder of files to choose from"):
            catalog.entry(wrong)
