"""The data engine against its peers on the same inputs and cores, each peer as its manual shows it and at its best: augmentation
from text to text and from token ids to token ids; a corpus cleaned, freed of near duplicates, tokenised and packed; tokenising
alone; what packing wastes; and whether the output is the same bytes however it was made.

Peers live in an environment of their own, which the first run makes (minutes); what is timed starts when both sides have everything
loaded. `--rows 8000` and `--repeats 1` make it small, `--only augment` (ids, corpus, tokens, bytes) runs a part."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks import _data_augment, _data_corpus, _data_inputs, _data_tokens
from benchmarks._claim import Claim
from benchmarks._data_peers import peer
from benchmarks._peers import available_cores, on_cores
from orchestration.data import catalog
from orchestration.errors import UserError
from orchestration.storage import Storage

PARTS = ("augment", "ids", "corpus", "bytes", "tokens")
SAMPLE_ROWS = 6000  # on which pairs of near duplicates are compared one by one, and bytes by hash


def run(
    only: str = "", rows: int | None = None, repeats: int = 3, corpus_repeats: int = 2, shrink: float = 1.0
) -> list[Claim]:
    """`shrink`: smaller samples of texts for the augmenters. Raises UserError for an unknown part."""
    parts = tuple(only.split(",")) if only else PARTS
    if unknown := [part for part in parts if part not in PARTS]:
        raise UserError(f"--only {unknown[0]}: no part is called so; there are: {', '.join(PARTS)}")
    cores = available_cores(2)
    with tempfile.TemporaryDirectory(prefix="eagleray-bench-") as name:
        folder, claims = Path(name), []
        for part in parts:
            if part in ("augment", "ids"):
                claims += augment(part == "ids", cores, folder, repeats, shrink)
            elif part == "corpus":
                whole, sample = _data_inputs.corpus(rows), _data_inputs.corpus(min(SAMPLE_ROWS, rows or SAMPLE_ROWS))
                claims += _data_corpus.claims(whole, sample, cores=cores, folder=folder, repeats=corpus_repeats)
            elif part == "bytes":
                sample = _data_inputs.corpus(min(SAMPLE_ROWS, rows or SAMPLE_ROWS))
                claims.append(_data_corpus.same_bytes(sample, cores=cores, folder=folder))
            else:
                claims += tokens(cores, folder, rows, repeats)
    return claims


def augment(with_ids: bool, cores: list[int], folder: Path, repeats: int, shrink: float) -> list[Claim]:
    stop_words = (catalog.local("catalog:nltk-data") / "corpora" / "stopwords" / "english").read_text(encoding="utf-8")
    known = frozenset(stop_words.split())
    texts = [text for text in _data_inputs.texts("vader-sentiment") if _data_augment.usable(text, known)]
    ids = _data_augment.Ids(catalog.local(_data_corpus.TOKENIZER)) if with_ids else None
    with peer("data_augment", cores=cores[-1:]) as process, on_cores(cores[-1:]):
        return _data_augment.claims(
            texts,
            process,
            storage=Storage(str(folder / "tables")),
            folder=folder,
            ids=ids,
            repeats=repeats,
            shrink=shrink,
        )


def tokens(cores: list[int], folder: Path, rows: int | None, repeats: int) -> list[Claim]:
    texts, model = _data_inputs.corpus(rows).texts, catalog.local(_data_corpus.TOKENIZER)
    speed = _data_tokens.claims(texts, model, cores=cores, folder=folder, repeats=repeats)
    return [*speed, _data_tokens.waste(texts, model)]
