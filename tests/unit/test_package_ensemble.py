"""Several packages as one: the mean of their probabilities, sealed and verified like any package. Real encoders cut to two layers."""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models import ensemble as averaging
from orchestration import ensemble, package
from orchestration.errors import DamagedError, UserError
from orchestration.storage import MANIFEST, Storage
from tests.packages import HEADS, LABELS, TAGS, task_package

TEXTS = ["Lovely.", "A dull film, and far too long for what it has to say.", "fine " * 60]


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    return Storage(str(tmp_path_factory.mktemp("storage")))


@functools.cache
def pair_of(task: str, minilm: Path, storage: Storage, *, pair: bool = False) -> list[str]:
    return [task_package(task, minilm, storage, seed=seed, pair=pair) for seed in (3, 4)]


def fused(storage: Storage, rels: list[str]) -> package.Package:
    return package.opened(storage, ensemble.fuse(storage, rels, name="both").rel)


def test_scores_of_a_classifier_are_the_mean_of_its_members(minilm: Path, storage: Storage) -> None:
    rels = pair_of("classification", minilm, storage)
    both, members = fused(storage, rels), [package.opened(storage, rel) for rel in rels]
    each = [member.answer(TEXTS) for member in members]
    assert max(abs(a["scores"]["positive"] - b["scores"]["positive"]) for a, b in zip(*each, strict=True)) > 0.01
    for row, found in enumerate(both.answer(TEXTS)):
        means = {label: np.mean([answers[row]["scores"][label] for answers in each]) for label in LABELS}
        assert found["scores"] == pytest.approx(means, abs=1e-5)
        assert found["label"] == max(means, key=means.__getitem__)
        assert found["truncated"] == each[0][row]["truncated"]
    assert [part["package"] for part in both.lineage["members"]] == rels
    assert [part["lineage"] for part in both.lineage["members"]] == [member.lineage for member in members]


def test_pairs_numbers_heads_and_tags_are_averaged_too(minilm: Path, storage: Storage) -> None:
    def each(task: str, asked: list[Any], **more: Any) -> tuple[Any, list[Any]]:
        rels = pair_of(task, minilm, storage, **more)
        return fused(storage, rels).answer(asked), [package.opened(storage, rel).answer(asked) for rel in rels]

    found, members = each("classification", [("Where is Anna?", "Anna is in Paris.")], pair=True)
    assert found[0]["score"] == pytest.approx(
        np.mean([one[0]["scores"][found[0]["label"]] for one in members]), abs=1e-5
    )
    found, members = each("regression", TEXTS)
    assert found[0]["value"] == pytest.approx(np.mean([one[0]["value"] for one in members]), abs=1e-5)
    found, members = each("heads", TEXTS)
    assert len(found[0]["heads"]) == len({label.partition(":")[0] for label in HEADS})
    for head, told in found[0]["heads"].items():
        means = {name: np.mean([one[0]["heads"][head]["scores"][name] for one in members]) for name in told["scores"]}
        assert told["scores"] == pytest.approx(means, abs=1e-5)
    found, members = each("tagging", ["We met Anna in Paris ."])
    agreed = [(a["tag"], (a["probability"] + b["probability"]) / 2) for a, b in _words(members) if a["tag"] == b["tag"]]
    told_of = [one for one, (a, b) in zip(found[0]["words"], _words(members), strict=True) if a["tag"] == b["tag"]]
    assert [one["tag"] for one in found[0]["words"] if one["tag"] not in TAGS] == []
    assert [(one["tag"], pytest.approx(one["probability"], abs=1e-5)) for one in told_of] == agreed


def _words(members: list[Any]) -> list[Any]:
    return list(zip(*(one[0]["words"] for one in members), strict=True))


def test_what_cannot_be_averaged_is_refused_with_its_reason(minilm: Path, storage: Storage) -> None:
    first, second = pair_of("classification", minilm, storage)
    with pytest.raises(UserError, match="two packages or more, each named once"):
        ensemble.fuse(storage, [first, first], name="both")
    with pytest.raises(UserError, match=r"was trained for regression, and the first one for classification"):
        ensemble.fuse(storage, [first, pair_of("regression", minilm, storage)[0]], name="both")
    with pytest.raises(UserError, match=r"masked_lm, whose answers cannot be averaged; allowed: classification"):
        ensemble.fuse(storage, [task_package("masked_lm", minilm, storage), first], name="both")
    with pytest.raises(UserError, match=r"another preprocessing\.json than the first one"):
        ensemble.fuse(storage, [first, pair_of("classification", minilm, storage, pair=True)[0]], name="both")
    whole = ensemble.fuse(storage, [first, second], name="both")
    with pytest.raises(UserError, match="an ensemble itself; name its members"):
        ensemble.fuse(storage, [first, whole.rel], name="both")


def test_other_labels_are_refused_and_a_damaged_member_by_its_file(
    minilm: Path, storage: Storage, tmp_path: Path
) -> None:
    rels = pair_of("classification", minilm, storage)
    opened = [package.opened(storage, rel) for rel in rels]
    opened[1].labels = LABELS[::-1]
    assert "has the labels" in str(ensemble.unfit(*opened))
    copy = Path(shutil.copytree(storage.fetch(ensemble.fuse(storage, rels, name="both").rel), tmp_path / "package"))
    assert {"members/0/model.safetensors", "members/1/lineage.json"} <= set(
        json.loads((copy / MANIFEST).read_text())["files"]
    )
    with open(copy / "members" / "1" / "model.safetensors", "r+b") as handle:
        handle.seek(-3, 2)
        handle.write(b"\x7f")
    with pytest.raises(DamagedError, match=r"members/1/model\.safetensors: sha256"):
        package.load(copy)


def test_each_stretch_of_outputs_is_averaged_by_itself_and_numbers_as_they_are() -> None:
    logits = [torch.randn(3, 5, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2, 3)]
    found = averaging.mean(logits, [2, 3])
    for part in (slice(0, 2), slice(2, 5)):
        wanted = torch.stack([one[:, part].softmax(-1) for one in logits]).mean(0)
        assert torch.allclose(found[:, part].exp(), wanted, atol=1e-6)
    assert torch.allclose(averaging.mean(logits, None), torch.stack(logits).mean(0))
