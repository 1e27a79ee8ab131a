"""What a row teaches beside its class: read from records, checked in the spec."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestration.data.config import DataConfig
from orchestration.data.prepare import content_spec
from orchestration.data.rng import mix
from orchestration.data.scan import scan
from orchestration.data.sources import Rows, read_rows
from orchestration.errors import DataError
from orchestration.storage import Storage, digest
from tests.corpora import lines

SPAN = {"text": "answer", "start": "start"}


def _config(path: Path | str, source: dict[str, Any], **more: Any) -> DataConfig:
    return DataConfig.model_validate({"sources": [{"name": "s", "path": str(path), **source}], **more})


def _read(tmp_path: Path, records: list[dict[str, Any]], source: dict[str, Any], **more: Any) -> Rows:
    path = tmp_path / "rows.jsonl"
    return _rows(_config(lines(path, records), source, **more))


def _rows(config: DataConfig) -> Rows:
    _, units = scan(config, Storage("/nonexistent"))
    assert len(units) == 1
    return read_rows(units[0], config.sources[0], config)


def _left(rows: Rows) -> dict[str, int]:
    return {reason: left.rows for reason, left in rows.left.items()}


# ------------------------------------------------------------------------------------------------ numbers and classes


def test_a_value_is_a_finite_number_or_the_row_is_named_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    good, bad = ["3", "-1.5e3", '"0.25"', "3.4e38"], ["null", '"high"', "NaN", "Infinity", "1e39", "true", "[1]"]
    path.write_text(
        "".join(f'{{"text": "t{i}", "y": {value}}}\n' for i, value in enumerate([*good, *bad])) + '{"text": "t"}'
    )
    rows = _rows(_config(path, {"value": "y"}))
    assert rows.targets == {"value": [3.0, -1500.0, 0.25, 3.4e38]}
    assert _left(rows) == {"column 'y' is empty": 1, "column 'y' is not a finite number": 6, "column 'y' is missing": 1}
    assert all(left.bad for left in rows.left.values())
    assert rows.left["column 'y' is not a finite number"].examples[0].endswith("rows.jsonl row 6: 'high'")


def test_a_window_of_a_series_has_the_value_of_its_last_step(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"a": [float(i) for i in range(20)], "y": [i * 10 for i in range(20)]}), tmp_path / "t.parquet"
    )
    source = {"format": "series", "series": ["a"], "value": "y"}
    rows = _rows(_config(tmp_path / "t.parquet", source, series={"window": 5, "stride": 5}))
    assert rows.targets == {"value": [40.0, 90.0, 140.0, 190.0]}


def test_each_head_has_its_class_and_a_row_without_one_has_none_there(tmp_path: Path) -> None:
    records = [
        {"text": "a", "mood": "good", "stars": 5},
        {"text": "b", "mood": None, "stars": 1},
        {"text": "c", "mood": "bad"},
        {"text": "d", "mood": "", "stars": None},
        {"text": "e", "mood": "mixed", "stars": 2},
        {"text": "f", "stars": 3},
    ]
    labels = {"mood": {"column": "mood"}, "liked": {"column": "stars", "rules": {"no": "< 3", "yes": "> 3"}}}
    heads = {"mood": ["bad", "good"], "liked": ["no", "yes"]}
    rows = _read(tmp_path, records, {"labels": labels}, heads=heads)
    assert rows.texts == ["a", "b", "c"]
    assert rows.targets == {"head:mood": [1, -1, 0], "head:liked": [1, 0, -1]}
    assert _left(rows) == {"no head has a label": 2, "column 'mood' is none of the labels bad, good": 1}
    assert not rows.left["no head has a label"].bad


# ------------------------------------------------------------------------------------------------ second and wanted texts


def test_both_texts_of_a_pair_make_a_row_equal_to_another(tmp_path: Path) -> None:
    records = [
        {"text": "It rains.", "other": "It is wet."},
        {"text": "it  RAINS.", "other": "It is WET. "},
        {"text": "It rains.", "other": "It is dry."},
        {"text": "It rains. It", "other": "is wet."},
        {"text": "It is wet.", "other": "It rains."},
        {"text": "alone", "other": " \u0007"},
        {"text": "alone", "other": None},
        {"text": "alone", "other": 3},
    ]
    rows = _read(tmp_path, records, {"pair": "other"})
    assert rows.targets["pair"][:3] == ["It is wet.", "It is WET.", "It is dry."]
    assert len(set(rows.text_hashes)) == 4
    assert rows.text_hashes[0] == rows.text_hashes[1]
    assert rows.group_hashes == rows.text_hashes
    assert _left(rows) == {"column 'other' is empty": 2, "column 'other' is not text": 1}
    without = _read(tmp_path, records, {})
    assert rows.row_ids[:5] == without.row_ids[:5]  # identity is of the record, whatever is read of it


def test_a_text_to_write_is_cleaned_as_the_text_is_and_never_empty(tmp_path: Path) -> None:
    records = [{"text": "a", "t": "cafe\u0301 \r\n x "}, {"text": "b", "t": ""}, {"text": "c"}]
    rows = _read(tmp_path, records, {"target": "t"})
    assert rows.targets == {"target": ["café \n x"]}
    assert _left(rows) == {"column 't' is empty": 1, "column 't' is missing": 1}


# ------------------------------------------------------------------------------------------------ words


def test_words_and_tags_come_as_lists_or_as_texts(tmp_path: Path) -> None:
    records = [
        {"text": ["Ada", "lives", "in", "New York"], "tags": ["B-PER", "O", "O", "B-LOC"]},
        {"text": "Ada lives\tin  London", "tags": "B-PER O O B-LOC"},
        {"text": ["Ada", "\u0007", "sang"], "tags": ["B-PER", "O", "O"]},
        {"text": ["Ada", "sang"], "tags": ["B-PER"]},
        {"text": ["Ada", "sang"], "tags": ["B-PER", "VERB"]},
        {"text": ["Ada", 7], "tags": ["B-PER", "O"]},
        {"text": {"a": 1}, "tags": []},
    ]
    rows = _read(tmp_path, records, {"tags": "tags"}, tags=["O", "B-PER", "B-LOC"])
    assert rows.texts == ["Ada lives in New York", "Ada lives in London", "Ada sang"]
    assert rows.targets["words"] == [
        ["Ada", "lives", "in", "New York"],
        ["Ada", "lives", "in", "London"],
        ["Ada", "", "sang"],
    ]
    assert rows.targets["tags"] == [[1, 0, 0, 2], [1, 0, 0, 2], [1, 0, 0]]
    assert _left(rows) == {
        "column 'tags' has another number of tags than 'text' has words": 1,
        "column 'tags' is none of the labels O, B-PER, B-LOC": 1,
        "column 'text' is not text": 1,
        "column 'text' is neither a list nor text": 1,
    }


def test_tags_of_parquet_and_class_numbers_of_datasets_are_read_by_name(tmp_path: Path) -> None:
    import datasets

    table = {"words": [["Ada", "sang"], ["東京"]], "tags": [["B", "O"], ["B"]]}
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    source = {"text": "words", "tags": "tags"}
    found = _rows(_config(tmp_path / "t.parquet", source, tags=["O", "B"]))
    assert found.targets["tags"] == [[1, 0], [1]]
    features = datasets.Features(
        {
            "words": datasets.Sequence(datasets.Value("string")),
            "tags": datasets.Sequence(datasets.ClassLabel(names=["B", "O"])),
            "y": datasets.ClassLabel(names=["a", "b"]),
        }
    )
    numbered = {"words": table["words"], "tags": [[0, 1], [0]], "y": [0, 1]}
    datasets.Dataset.from_dict(numbered, features=features).save_to_disk(tmp_path / "set")
    named = _rows(_config(tmp_path / "set", source | {"value": "y"}, tags=["O", "B"]))
    assert (named.texts, named.targets["tags"]) == (found.texts, found.targets["tags"])
    assert named.targets["value"] == [0.0, 1.0]


def test_a_word_that_is_not_utf8_makes_its_row_unusable_and_no_other(tmp_path: Path) -> None:
    words = pa.ListArray.from_arrays(
        pa.array([0, 1, 2], pa.int32()), pa.array([b"caf\xe9", b"Ada"], pa.binary()).view(pa.string())
    )
    pq.write_table(pa.table({"text": words, "tags": pa.array([["O"], ["B"]])}), tmp_path / "t.parquet")
    rows = _rows(_config(tmp_path / "t.parquet", {"tags": "tags"}, tags=["O", "B"]))
    assert rows.texts == ["Ada"]
    assert _left(rows) == {"column 'text' is not valid UTF-8": 1}


# ------------------------------------------------------------------------------------------------ spans


def _asked(text: str, answer: str | None, start: Any) -> dict[str, Any]:
    return {"text": text, "answer": answer, "start": start}


def test_an_answer_stands_at_its_offset_or_its_row_is_unusable(tmp_path: Path) -> None:
    records = [
        _asked("Rome or Rome", "Rome", 8),
        _asked("In  Rome", "Rome", "4"),
        _asked("No Rome", "", -1),
        _asked("None at all", None, None),
        _asked("Rome fell", "Rome", 1),
        _asked("Rome burns", "Rome", -1),
        _asked("Rome sleeps", "Rome", 0.5),
        _asked("Rome wakes", "Rome", None),
        _asked("Rome", "Rome fell", 0),
        {"text": "no such column"},
    ]
    rows = _read(tmp_path, records, {"span": SPAN})
    assert rows.targets == {"span": [(8, 12), (4, 8), None, None]}
    assert _left(rows) == {
        "column 'answer' does not stand at its offset in the text": 2,
        "column 'start' is not a whole number of characters": 2,
        "column 'start' is empty": 1,
        "column 'answer' is missing": 1,
    }


def test_an_answer_is_in_the_pair_where_there_is_one(tmp_path: Path) -> None:
    record = {"text": "Where was Ada born?", "context": "  Ada was born in London.", "answer": "London", "start": 18}
    rows = _read(tmp_path, [record], {"pair": "context", "span": SPAN})
    begin, end = rows.targets["span"][0]
    assert rows.targets["pair"][0][begin:end] == "London"


@pytest.mark.parametrize("normalize", ["NFC", "NFKC", "none"])
def test_cleaning_that_changes_characters_moves_no_answer(tmp_path: Path, normalize: str) -> None:
    """Among many of the same word the one that was meant, whatever shrinks or grows before it."""
    parts = ["e\u0301", "ﬁne", "\u0007", "\r\n", " ", "Rome", "\ufeff", "㎏", "\t", "x", "½", "Rome "]
    records = []
    for seed in range(200):
        before, behind = (
            "".join(parts[mix(mix(seed, side), i) % len(parts)] for i in range(mix(seed, side) % 9)) for side in (1, 2)
        )
        answer = ["Rome", " Rome", "½", "fi\ufb01 Rome"][mix(seed, 3) % 4]
        records.append(_asked(f"{before}{answer}{behind}", answer, len(before)))
    rows = _read(tmp_path, records, {"span": SPAN}, clean={"normalize": normalize, "drop_duplicates": False})
    assert not rows.left
    for record, text, (begin, end) in zip(records, rows.texts, rows.targets["span"], strict=True):
        form = (lambda value: value) if normalize == "none" else (lambda value: unicodedata.normalize(normalize, value))
        assert text[begin:end] == form(record["answer"].strip())
        rest = record["text"][: record["start"]]
        visible = form(rest.replace("\u0007", "").replace("\ufeff", "")).split()
        assert text[:begin].split() == visible


def test_an_answer_that_a_letter_behind_it_joins_is_unusable(tmp_path: Path) -> None:
    rows = _read(tmp_path, [_asked("cafe or cafe\u0301", "cafe", 8)], {"span": SPAN})
    assert _left(rows) == {"column 'answer' is not in the text once that is clean": 1}


def test_where_markup_goes_the_nearest_answer_is_taken(tmp_path: Path) -> None:
    text = "<p>Rome fell.</p><!-- Rome --><p>But <b>Rome &amp; Ostia</b> rose; Rome &amp; Ostia.</p>"
    records = [
        _asked(text, "Rome &amp; Ostia", text.index("Rome &amp;")),
        _asked(text + " ", "Rome &amp; Ostia", text.rindex("Rome &amp;")),
    ]
    rows = _read(tmp_path, records, {"span": SPAN}, clean={"markup": True, "drop_duplicates": False})
    spans = [text[begin:end] for text, (begin, end) in zip(rows.texts, rows.targets["span"], strict=True)]
    assert spans == ["Rome & Ostia"] * 2
    assert rows.targets["span"][0] < rows.targets["span"][1]


# ------------------------------------------------------------------------------------------------ specs

AUGMENT = {"ops": [{"op": "swap"}]}
TAGGED: dict[str, Any] = {"source": {"tags": "tags"}, "tags": ["O", "B"]}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"source": {"target": "t", "tags": "g"}}, "target and tags: a row has one of target, tags, span"),
        ({"source": {"span": SPAN, "text": None, "image": "i"}}, "span belongs to a text, and text is null"),
        ({"source": {"pair": "p"}, "tokenize": {"pack": True}}, "has pair, and tokenize.pack .*set pack: false"),
        ({"source": {"value": "v"}, "tokenize": {"pack": True}}, "has value, and tokenize.pack"),
        ({**TAGGED, "tokenize": {"long": "windows"}}, "has tags, and tokenize.long: windows .*set long: truncate"),
        ({"source": {"span": SPAN}, "tokenize": {"fim": {}}}, "has span, and tokenize.fim .*leave fim out"),
        ({"source": {"target": "t"}, "augment": AUGMENT}, "has target, and augment.ops: swap .*leave ops of texts out"),
        ({"source": {"pair": "p"}, "augment": AUGMENT | {"when": "epoch"}}, "has pair, and augment.ops: swap"),
        ({**TAGGED, "clean": {"markup": True}}, "has tags, and clean.markup .*set markup: false"),
        ({"source": {"tags": "g"}}, "tags names the values of the sources' column"),
        ({"source": {}, "tags": ["O", "B"]}, "give both, or neither"),
        ({**TAGGED, "tags": ["O", "O"]}, "name two classes or more, each once"),
        (
            {"source": {"labels": {"mod": {"column": "m"}}}, "heads": {"mood": ["a", "b"]}},
            "heads.mood: no source gives it",
        ),
        (
            {"source": {"labels": {"mood": {"column": "m"}, "mod": {"column": "m"}}}, "heads": {"mood": ["a", "b"]}},
            "head 'mod', which is not in heads; nearest: mood",
        ),
        (
            {"source": {"labels": {"m": {"column": "m", "rules": {"c": "> 0"}}}}, "heads": {"m": ["a", "b"]}},
            "labels.m has a rule for 'c'",
        ),
        ({"source": {}, "tokenize": {"target_length": 9}}, "tokenize.target_length cuts the target"),
    ],
)
def test_what_does_not_go_together_is_named_on_both_sides(spec: dict[str, Any], words: str) -> None:
    spec = dict(spec)
    with pytest.raises(ValueError, match=words):
        _config("x.jsonl", spec.pop("source"), **spec)


def test_a_target_is_of_every_source_or_of_none() -> None:
    sources = [{"name": "a", "path": "a.jsonl", "value": "y"}, {"name": "b", "path": "b.jsonl"}]
    with pytest.raises(ValueError, match="source 'a' has value, source 'b' has none; give it to each or none"):
        DataConfig.model_validate({"sources": sources})


def test_ops_of_images_go_with_a_text_to_write() -> None:
    source = {"image": "i", "text": None, "target": "caption"}
    assert _config("x.parquet", source, augment={"ops": [{"op": "flip"}]}).sources[0].target == "caption"


def test_a_column_that_the_file_lacks_is_named_with_its_key(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"], "answers": ["b"], "start": [0]}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"no column 'answer' \(data.sources 's', span.text\); nearest: answers"):
        _rows(_config(tmp_path / "t.parquet", {"span": SPAN}))


def test_a_spec_without_targets_dumps_as_before_there_were_any() -> None:
    config = _config("x.jsonl", {})
    assert digest(content_spec(config)) == "902695979e571ad3c552657cb6c6ab19"  # it is part of every store's address
    dumped = config.model_dump(mode="json")
    assert not {"heads", "tags"} & dumped.keys()
    assert not {"value", "pair", "target", "tags", "span", "labels"} & dumped["sources"][0].keys()
    assert "target_length" not in dumped["tokenize"]
