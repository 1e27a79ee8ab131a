"""Pictures and sounds of packages made into Parquet, bytes and captions side by side. Takes downloaded archives; fills a folder.
Called by the catalogue's fetch through its list; each function is the conversion of the entry it is named after. Bytes of files
stay as they are in the package; openmoji's are drawn from its font."""

from __future__ import annotations

import html
import io
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestration.data.catalog.unpack import MEDIA_GROUP_ROWS, members, only, write_rows
from orchestration.errors import UserError

MAX_PIXELS = 16_000_000  # of a clip art; one of the package has 623 million
MAX_SHARED = 3  # pictures under one title; a title of more is that of a collection and says nothing of the picture
GENERATED = "gramastar"  # 1,375 stars that a program drew, alike but for their number of points
SKIN_TONES = "\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff"
EMOJI_POINTS = 64  # font size


def openmoji(archives: list[Path], folder: Path) -> None:
    """Font and names -> image (PNG, RGB on white), text, text_zh, emoji: fully qualified emoji without skin tones, those that the
    font has."""
    font = _emoji_font(only(archives[0], "/font/glyf_colr0.ttf"))
    where = "emoji/unicode_codes/"
    names = dict(members(archives[1], lambda name: name in (f"{where}emoji.json", f"{where}emoji_zh.json")))
    english, chinese = json.loads(names[f"{where}emoji.json"]), json.loads(names[f"{where}emoji_zh.json"])
    width = font.getlength("\U0001f600")  # one glyph: an emoji that the font lacks is wider or narrower
    rows = []
    for emoji, about in english.items():
        qualified = about["status"] == 2 and not set(emoji) & set(SKIN_TONES)
        if qualified and font.getlength(emoji) == width:
            rows.append((_drawn(emoji, font), _named(about["en"]), _named(chinese[emoji]), emoji))
    columns = {"image": "binary", "text": "string", "text_zh": "string", "emoji": "string"}
    write_rows(folder / "openmoji.parquet", columns, rows, MEDIA_GROUP_ROWS)


def _emoji_font(content: bytes) -> Any:
    from PIL import ImageFont, features

    if not (features.check("raqm") and features.check("fribidi")):
        raise UserError(
            "catalog:openmoji: drawing flags and families needs Pillow with raqm and fribidi; install Pillow from its wheel"
            " (`pip install --force-reinstall pillow`) and the system's fribidi library"
        )
    return ImageFont.truetype(io.BytesIO(content), EMOJI_POINTS, layout_engine=ImageFont.Layout.RAQM)


def _drawn(emoji: str, font: Any) -> bytes:
    from PIL import Image, ImageDraw

    side = EMOJI_POINTS * 5 // 4
    image = Image.new("RGB", (side, side), "white")
    ImageDraw.Draw(image).text((side / 2, side / 2), emoji, font=font, embedded_color=True, anchor="mm")
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def _named(name: str) -> str:
    return name.strip(":").replace("_", " ")


def twitter_emoji(archives: list[Path], folder: Path) -> None:
    """PNG of 64 x 64 -> image, text, category, subcategory, emoji."""
    wanted = re.compile(r"package/(?:emoji\.json|img/twitter/64/[^/]+\.png)")
    files = dict(members(archives[0], lambda name: wanted.fullmatch(name) is not None))
    rows = []
    for about in json.loads(files["package/emoji.json"]):
        emoji = "".join(chr(int(point, 16)) for point in about["unified"].split("-"))
        image = files[f"package/img/twitter/64/{about['image']}"]
        rows.append((image, about["name"].lower(), about["category"], about["subcategory"], emoji))
    columns = {"image": "binary", "text": "string", "category": "string", "subcategory": "string", "emoji": "string"}
    write_rows(folder / "twitter-emoji.parquet", columns, rows, MEDIA_GROUP_ROWS)


def openclipart(archives: list[Path], folder: Path) -> None:
    """PNG files of one package, titles and keywords in the SVG files of the other -> image, text (the title, or the keywords where
    the title is a collection's), keywords, category, file."""
    about = dict(_clip_art_texts(archives[1]))
    shared = Counter(title for title, _ in about.values())
    columns = {"image": "binary", "text": "string", "keywords": "string", "category": "string", "file": "string"}
    rows = (
        (image, *text, file.partition("/")[0], file)
        for file, image in _clip_art_images(archives[0])
        if (text := _caption(*about.get(file, ("", [])), shared)) is not None
    )
    write_rows(folder / "openclipart.parquet", columns, rows, MEDIA_GROUP_ROWS)


def _clip_art_texts(archive: Path) -> Iterator[tuple[str, tuple[str, list[str]]]]:
    """File without ending -> (title, keywords), read by expressions: an XML parser would follow entities that files declare."""
    for name, content in members(archive, lambda name: name.endswith(".svg")):
        work = re.search(r"<(?:cc:)?Work\b.*?</(?:cc:)?Work>", content.decode("utf-8", "replace"), re.DOTALL)
        found = work[0] if work else ""
        title = re.search(r"<dc:title>([^<]*)</dc:title>", found)
        words = (html.unescape(word).strip() for word in re.findall(r"<rdf:li>([^<]*)</rdf:li>", found))
        keywords = [word for word in dict.fromkeys(words) if word not in ("", "hash", "unsorted")]
        yield _clip_art(name), (html.unescape(title[1]).strip() if title else "", keywords)


def _clip_art_images(archive: Path) -> Iterator[tuple[str, bytes]]:
    """(file without ending, PNG) where the header's size can be decoded by anyone."""
    for name, content in members(archive, lambda name: name.endswith(".png")):
        width, height = int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")
        if 64 <= width * height <= MAX_PIXELS:
            yield _clip_art(name), content


def _clip_art(name: str) -> str:
    return re.sub(r".*/openclipart/(?:png|svg)/(.*)\.(?:png|svg)", r"\1", name)


def _caption(title: str, keywords: list[str], shared: Counter[str]) -> tuple[str, str] | None:
    """(text, keywords divided by commas), or None for a picture without a text of its own."""
    if title == GENERATED:
        return None
    text = title.replace("_", " ") if title and shared[title] <= MAX_SHARED else ", ".join(keywords)
    return (text, ", ".join(keywords)) if text else None


def asterisk_prompts(archives: list[Path], folder: Path) -> None:
    """WAV files, a package a language -> audio, text (the file's name in words; the packages have no transcripts), language, file."""
    rows = []
    for archive in archives:
        language = archive.name.removeprefix("asterisk-core-sounds-")[:2]
        for name, content in sorted(members(archive, lambda name: name.endswith(".wav"))):
            file = name.partition("/sounds/")[2].partition("/")[2].removesuffix(".wav")
            rows.append((content, " ".join(re.split(r"[/_-]+", file)), language, file))
    columns = {"audio": "binary", "text": "string", "language": "string", "file": "string"}
    write_rows(folder / "asterisk-prompts.parquet", columns, rows, MEDIA_GROUP_ROWS)
