"""Text -> token ids. Takes a model folder's tokenizer.json; gives ids with the special tokens, cut or windowed to `max_length`.
Called by `prepare` and by the endpoint: the same code trains and serves. Uses the `tokenizers` library alone, since importing
transformers costs a worker seconds; a test compares the ids with transformers' own.

Most words of a corpus have come before, so the ids of each chunk (chunks.py) are kept and joined: the library only sees chunks
that are new, and texts that cannot be cut safely. Ids travel as the bytes of int32 arrays, which Python joins and cuts in C."""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from orchestration.data import fim
from orchestration.data.chunks import Split, rule, separator
from orchestration.data.config import FimConfig, TokenizeConfig
from orchestration.data.frame import frame, longest_first, pad_id, word_starts
from orchestration.errors import UserError

FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")  # what the ids may depend on
ID_BYTES = fim.ID_BYTES
MAX_CHUNKS = 2**18  # kept at most, about 60 MB; then all are forgotten
MAX_CHUNK_CHARS = 64  # a text with a longer new chunk (a language without spaces, base64) is not worth keeping in parts
BLOCK = 4096  # texts looked up before the library is asked for what was missing
JOINED = 256  # new chunks in one call of the library
MAX_WINDOWS = 2**15  # parts are int16
FIM_ROOM = 4  # three special tokens and something to fill in
Cut = tuple[int, list[str]]  # a text's number and its chunks


class TooManyWindows(UserError):
    """`text`: the number of the text that makes too many windows. Who knows which row it is says so."""

    def __init__(self, text: int, windows: int) -> None:
        super().__init__(
            f"makes {windows} windows, above {MAX_WINDOWS}; raise data.tokenize.max_length or lower data.clean.max_chars"
        )
        self.text = text


@dataclass(frozen=True)
class Entries:
    """Training entries of a batch of texts. E entries, T tokens in all; those of entry e are values[offsets[e]:offsets[e+1]]."""

    values_T: np.ndarray  # int32
    offsets_E1: np.ndarray  # int64
    row_E: np.ndarray  # int64: which of the texts; ascending
    part_E: np.ndarray  # int16: which window of it
    truncated: int  # texts that lost tokens

    def __len__(self) -> int:
        return len(self.row_E)


class Framed(NamedTuple):
    """A row of one text or two as the model reads it. `parts`: where the tokens of each text stand; `parts[1].start` is the first of
    the second text. `cut`: tokens were lost. `starts_W`: of words the first token of each, -1 where it has none (cut, or empty)."""

    ids: np.ndarray  # int32
    parts: tuple[slice, ...]
    cut: bool
    starts_W: np.ndarray | None = None


class Tokenizer:
    """`pad_id` fills short rows of a batch; `truncated` counts the rows cut so far; `library` is the tokenizer that fills the
    gaps, without truncation. Threads may share one."""

    def __init__(self, folder: Path, max_length: int) -> None:
        """Raises UserError where tokenizer.json is missing or cannot be used."""
        from tokenizers import Tokenizer as Fast

        path = Path(folder) / "tokenizer.json"
        if not path.is_file():
            raise UserError(
                f"{path}: missing; a model folder needs tokenizer.json (transformers' fast tokenizer format)"
            )
        try:
            self.library: Any = Fast.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise UserError(f"{path}: not a tokenizer file: {error}") from None
        self.library.no_padding()
        self.library.no_truncation()
        self.max_length = max_length
        self.vocab_size: int = self.library.get_vocab_size(with_added_tokens=True)
        self.pad_id = pad_id(self.library, Path(folder))
        self.truncated = 0
        self._path = path
        self._head, self._tail = frame(self.library, path, 1)
        described = json.loads(path.read_text(encoding="utf-8"))
        self._rule = rule(described)
        self._separator = separator(described)
        self._known: dict[str, bytes] = {}

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Ids of each text, special tokens counted in `max_length`."""
        cut = self._room(self.max_length) * ID_BYTES
        rows = self._contents(texts)
        self.truncated += sum(len(row) > cut for row in rows)
        return [memoryview(self._head + row[:cut] + self._tail).cast("i").tolist() for row in rows]

    def entries(self, texts: Sequence[str], config: TokenizeConfig, keys: Sequence[int] | None = None) -> Entries:
        """Entries of `texts` by `config`: one a text, or one a window. A window has its own special tokens and begins `stride`
        tokens before the end of the one before it (as in transformers: return_overflowing_tokens). With `config.fim`, `keys`
        gives a 64-bit key a text; each window draws for itself. Raises UserError for what max_length has no room for,
        TooManyWindows for a text above MAX_WINDOWS."""
        room = self._room(config.max_length)
        step = _step(room, config)
        rows = self._contents(texts)
        long_N = np.fromiter(map(len, rows), np.int64, len(rows)) > room * ID_BYTES
        lost_N = long_N if step is None else np.zeros(len(rows), bool)
        pieces, parts = _cut(rows, room, step)
        part_E = np.array(parts, np.int16)
        row_E = np.cumsum(part_E == 0) - 1
        if config.fim is not None:
            drawn = fim.draw(keys, row_E, part_E, config.fim.rate)
            spans = self._spans(texts, long_N, [(row_E[e], parts[e] * (step or room), room) for e, _ in drawn])
            lost_N[row_E[self._fill_in(pieces, drawn, spans, room, config.fim)]] = True
        glue = self._tail + self._head
        values_T = np.frombuffer(self._head + glue.join(pieces) + self._tail if pieces else b"", np.int32)
        lengths_E = (np.fromiter(map(len, pieces), np.int64, len(pieces)) + len(glue)) // ID_BYTES
        offsets_E1 = np.concatenate([[0], np.cumsum(lengths_E)])
        self.truncated += (truncated := int(lost_N.sum()))
        return Entries(values_T, offsets_E1, row_E, part_E, truncated)

    def framed(self, *texts: Sequence[str]) -> list[Framed]:
        """Rows of one text, or of two by the tokenizer's template (without one: the second behind the first), cut to `max_length`
        longest first. Raises UserError for a template that does more than put special tokens around texts."""
        pieces = (self._head, self._tail) if len(texts) == 1 else self._pair_frame
        room = self._room(self.max_length, pieces)
        rows = []
        for contents in zip(*map(self._contents, texts), strict=True):
            lengths = [len(content) // ID_BYTES for content in contents]
            kept, ids, parts = longest_first(lengths, room), pieces[0], []
            for content, count, piece in zip(contents, kept, pieces[1:], strict=True):
                start = len(ids) // ID_BYTES
                parts.append(slice(start, start + count))
                ids += content[: count * ID_BYTES] + piece
            rows.append(Framed(np.frombuffer(ids, np.int32), tuple(parts), kept != lengths))
        return rows

    def words(self, rows: Sequence[Sequence[str]], *others: Sequence[str]) -> list[Framed]:
        """Rows whose first text is given as words: the ids of the words with single spaces between. A token that covers several
        words is the first one's."""
        texts = [" ".join(filter(None, words)) for words in rows]
        found = zip(self.framed(texts, *others), self.offsets(texts), rows, strict=True)
        return [row._replace(starts_W=word_starts(row.parts[0], offsets, words)) for row, offsets, words in found]

    def offsets(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Of each text the characters of its tokens, special tokens and cuts left out: (first, behind the last), int64 T x 2, rising."""
        encodings = self.library.encode_batch(list(texts), add_special_tokens=False) if texts else []
        found = [np.array(encoding.offsets, np.int64).reshape(-1, 2) for encoding in encodings]
        return [np.maximum.accumulate(offsets_T2, axis=0) for offsets_T2 in found]

    @cached_property
    def _pair_frame(self) -> tuple[bytes, ...]:
        return frame(self.library, self._path, 2)

    def _room(self, max_length: int, pieces: tuple[bytes, ...] = ()) -> int:
        """Tokens of content in an entry."""
        room = max_length - sum(map(len, pieces or (self._head, self._tail))) // ID_BYTES
        if room < 1:
            raise UserError(
                f"data.tokenize.max_length={max_length} is filled by the tokenizer's special tokens; raise it"
            )
        return room

    def _contents(self, texts: Sequence[str]) -> list[bytes]:
        """Ids of each text without special tokens."""
        if self._rule is None:
            return self._whole(texts)
        split = self._rule.split
        return [row for at in range(0, len(texts), BLOCK) for row in self._block(texts[at : at + BLOCK], split)]

    def _block(self, texts: Sequence[str], split: Split) -> list[bytes]:
        if len(self._known) > MAX_CHUNKS:
            self._known = {}  # a new dict: another thread may still be joining from the old one
        known, rows = self._known, [b""] * len(texts)
        get, join = known.__getitem__, b"".join
        whole: list[int] = []
        later: list[Cut] = []
        for i, text in enumerate(texts):
            chunks = split(text)
            if chunks is None:
                whole.append(i)
                continue
            try:
                rows[i] = join(map(get, chunks))
            except KeyError:
                later.append((i, chunks))
        for i, chunks in self._learn(known, later, whole):
            rows[i] = join(map(get, chunks))
        for i, row in zip(whole, self._whole([texts[i] for i in whole]), strict=True):
            rows[i] = row
        return rows

    def _learn(self, known: dict[str, bytes], later: list[Cut], whole: list[int]) -> list[Cut]:
        """Adds the missing chunks of `later` to `known`. Texts with an overlong one move to `whole`; gives the others."""
        kept: list[Cut] = []
        new: dict[str, None] = {}
        for i, chunks in later:
            missing = [chunk for chunk in chunks if chunk not in known]
            if missing and max(map(len, missing)) > MAX_CHUNK_CHARS:
                whole.append(i)
            else:
                kept.append((i, chunks))
                new.update(dict.fromkeys(missing))
        heads = [] if self._rule and self._rule.anywhere else [chunk for chunk in new if chunk[0] != " "]
        known.update(zip(heads, self._whole(heads), strict=True))
        others = [chunk for chunk in new if chunk not in known]
        known.update(zip(others, self._chunks(others), strict=True))
        return kept

    def _chunks(self, chunks: list[str]) -> list[bytes]:
        """Ids of each chunk. Many go in one call: the special token between them keeps them apart, and only it has its id."""
        if self._separator is None:
            return self._whole(chunks)
        groups = [chunks[at : at + JOINED] for at in range(0, len(chunks), JOINED)]
        ids = self._whole([self._separator.join(group) for group in groups])
        number, found = self.library.token_to_id(self._separator), []
        for group, row in zip(groups, ids, strict=True):
            cuts = (np.flatnonzero(np.frombuffer(row, np.int32) == number) * ID_BYTES).tolist()
            if len(cuts) == len(group) - 1:
                starts = [0, *(at + ID_BYTES for at in cuts)]
                found += [row[a:b] for a, b in zip(starts, [*cuts, len(row)], strict=True)]
            else:
                found += self._whole(group)
        return found

    def _whole(self, texts: Sequence[str]) -> list[bytes]:
        encodings = self.library.encode_batch_fast(list(texts), add_special_tokens=False) if texts else []
        return [array("i", encoding.ids).tobytes() for encoding in encodings]

    def _spans(self, texts: Sequence[str], long_N: np.ndarray, entries: list[tuple[int, int, int]]) -> list[str]:
        """Text of each entry (row, first token, tokens at most). Rows that are one entry are their text."""
        found, at, offsets = [], -1, []
        for row, start, count in entries:
            if not long_N[row]:
                found.append(texts[row])
                continue
            if row != at:
                at, offsets = row, self.library.encode(texts[row], add_special_tokens=False).offsets
            found.append(texts[row][offsets[start][0] : offsets[start : start + count][-1][1]])
        return found

    def _fill_in(
        self, pieces: list[bytes], drawn: list[tuple[int, int]], spans: list[str], room: int, config: FimConfig
    ) -> list[int]:
        """Arranges the drawn entries (number, key) in `pieces`, in place. Gives the numbers of those that lost tokens."""
        marks = fim.sentinels(self.library.token_to_id, config)
        cuts = [fim.cut(span, key) for span, (_, key) in zip(spans, drawn, strict=True)]
        ids = iter(self._contents([part for cut in cuts for part in cut]))
        lost = []
        for (entry, _), prefix, middle, suffix in zip(drawn, ids, ids, ids, strict=True):
            pieces[entry] = fim.arrange((prefix, middle, suffix), marks, room)
            if len(pieces[entry]) < sum(map(len, (*marks, prefix, middle, suffix))):
                lost.append(entry)
        return lost


def _step(room: int, config: TokenizeConfig) -> int | None:
    """Tokens from one window's start to the next; None: rows are cut."""
    if config.fim is not None and room < FIM_ROOM:
        raise UserError(
            f"data.tokenize.max_length={config.max_length} leaves {room} tokens; fim needs {FIM_ROOM}; raise it"
        )
    if config.long == "truncate":
        return None
    if config.stride >= room:
        raise UserError(
            f"data.tokenize.stride={config.stride}: a window of max_length={config.max_length} holds {room} tokens besides the"
            f" special ones; the stride can be {room - 1} at most"
        )
    return room - config.stride


def _cut(rows: list[bytes], room: int, step: int | None) -> tuple[list[bytes], list[int]]:
    """The entries of all rows and the part number of each. The last window is the first one that reaches the row's end."""
    size = room * ID_BYTES
    if step is None:
        return [row if len(row) <= size else row[:size] for row in rows], [0] * len(rows)
    pieces: list[bytes] = []
    parts: list[int] = []
    for i, row in enumerate(rows):
        stride = step * ID_BYTES
        count = 1 + max(0, -(-(len(row) - size) // stride))
        if count > MAX_WINDOWS:
            raise TooManyWindows(i, count)
        pieces += [row[at : at + size] for at in range(0, count * stride, stride)]
        parts += range(count)
    return pieces, parts
