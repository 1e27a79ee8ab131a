"""`eagleray data preview`: before and after of each op on real texts, a picture where there are pictures; starts nothing and prepares
nothing."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from jobs import preview
from jobs.spec import load_spec
from orchestration.data import prepare as stage
from orchestration.errors import DataError
from orchestration.storage import Storage
from orchestration.weights import stage as stage_weights
from tests.corpora import LABELS, RULES, entries, lines, run_here, scored, source

OPS = [{"op": "synonyms", "rate": 0.5}, {"op": "swap", "rate": 0.3}, {"op": "delete", "rate": 0.3}]


def _spec(root: Path, minilm: Path, **data: Any) -> Path:
    values = {
        "name": "shown",
        "seed": 5,
        "storage": str(root / "storage"),
        "data": {"labels": LABELS, "clean": {"markup": True}, **data},
        "model": {"path": str(minilm)},
    }
    path = root / "spec.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture
def texts(tmp_path: Path, minilm: Path) -> Path:
    rows = [{**row, "text": f"<p>{row['text']}</p>"} for row in scored(60, words=10)]
    path = lines(tmp_path / "rows.jsonl", rows)
    return _spec(tmp_path, minilm, sources=[source(path)], augment={"ops": OPS})


def _shown(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]


def test_each_row_is_shown_as_read_as_cleaned_and_after_each_op(
    texts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preview.run(load_spec(texts), rows=6, json_lines=True)
    found = _shown(capsys)
    assert len(found) == 6
    assert len({shown["row"] for shown in found}) == 6
    for shown in found:
        stages = shown["texts"]
        assert list(stages) == ["read", "cleaned", "synonyms", "swap", "delete", "all together"]
        assert stages["read"] == f"<p>{stages['cleaned']}</p>"
        assert shown["label"] in LABELS
        words = stages["cleaned"].split()
        if stages["delete"] is not None:
            assert len(stages["delete"].split()) < len(words)
    changed = [
        sum(shown["texts"][op] not in (None, shown["texts"]["cleaned"]) for shown in found)
        for op in ("synonyms", "swap", "delete")
    ]
    assert min(changed) >= 4


def test_the_first_copy_of_a_prepared_row_is_what_was_shown(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = load_spec(texts)
    preview.run(spec, rows=20, json_lines=True)
    shown = {row["texts"]["cleaned"]: row["texts"]["all together"] for row in _shown(capsys)}
    storage = Storage(spec.storage)
    monkeypatch.setattr(stage, "run_pass", run_here)
    weights = stage_weights(spec.model.path, storage)
    made = stage.prepare(spec.data, weights_rel=weights.rel, seed=spec.seed, storage=storage)
    rows = entries(storage, made, "train")
    copies = {row["row_id"]: row["text"] for row in rows if row["copy"] == 1}
    pairs = [
        (shown[row["text"]], copies.get(row["row_id"])) for row in rows if row["copy"] == 0 and row["text"] in shown
    ]
    assert len(pairs) > 10
    assert all(one == other for one, other in pairs)


def test_a_table_for_people_marks_nothing_where_nothing_changed(
    texts: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    preview.run(load_spec(texts, ["data.augment.ops=[{op: voice}]"]), rows=3)
    shown = capsys.readouterr().out
    assert shown.count("rows.jsonl row") == 3
    assert "unchanged" in shown
    assert "<p>" in shown
    assert "cleaned" in shown


def test_nothing_is_prepared_and_no_picture_is_drawn_of_texts(texts: Path, tmp_path: Path) -> None:
    preview.run(load_spec(texts), rows=2, json_lines=True)
    left = {path.name for path in (tmp_path / "storage").iterdir()}
    assert not left & {"stores", "reports", "weights"}


def _png(level: int) -> bytes:
    held = io.BytesIO()
    pixels = (np.arange(32 * 32 * 3).reshape(32, 32, 3) * (level + 3) % 256).astype(np.uint8)
    Image.fromarray(pixels).save(held, "PNG")
    return held.getvalue()


def test_pictures_are_drawn_before_and_after(tmp_path: Path, minilm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"text": f"picture {i}", "score": 1.0 - 2 * (i % 2), "picture": _png(i)} for i in range(12)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pictures.parquet")
    pictures = {"name": "pictures", "path": str(tmp_path / "pictures.parquet"), "image": "picture"}
    spec = _spec(
        tmp_path,
        minilm,
        sources=[{**pictures, "label": {"column": "score", "rules": RULES}}],
        image={"size": 24},
        augment={"ops": [{"op": "flip", "rate": 1.0}, {"op": "rotate"}]},
    )
    preview.run(load_spec(spec), rows=3, json_lines=True)
    *found, drawn = _shown(capsys)
    assert len(found) == 3
    assert all(list(shown["texts"]) == ["cleaned"] for shown in found)
    with Image.open(tmp_path / "storage" / drawn["picture"]) as image:
        assert image.format == "PNG"
        assert image.width > image.height * 0.9  # three lines of four pictures: read, flip, rotate, all together


def test_a_source_that_cannot_be_read_is_told_by_its_file(tmp_path: Path, minilm: Path) -> None:
    path = tmp_path / "rows.parquet"
    path.write_bytes(b"PAR1 but no more")
    with pytest.raises(DataError, match=r"rows\.parquet: not a readable parquet file"):
        preview.run(load_spec(_spec(tmp_path, minilm, sources=[source(path)])), rows=2)


def test_rows_that_cleaning_leaves_none_of_are_told(
    tmp_path: Path, minilm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = lines(tmp_path / "rows.jsonl", scored(5))
    preview.run(load_spec(_spec(tmp_path, minilm, sources=[source(path)], clean={"min_chars": 10_000})), rows=2)
    assert "no row is left by cleaning" in capsys.readouterr().out
