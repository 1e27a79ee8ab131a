"""Questions to a live endpoint, made of rows of the test split by the task: a row as it is, with one word hidden, or its beginning. Takes
the endpoint and the store; gives text, what people said, the answer and the version that gave it. Called by the pipeline as a client
would, over HTTP."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jobs.context import Job
from models.config import CAPTIONED, COMPARED, LANGUAGE, PAIRED
from models.labels import parted
from orchestration.answers.facts import hole, mask_token
from orchestration.answers.kinds import KINDS, Kind
from orchestration.data.store import TokenStore
from orchestration.errors import UserError
from orchestration.evaluation.stored import sendable, stored_rows

QUESTIONS = 3
FOLLOWS = {"sentence_order": "in order", "next_sentence": "follows"}  # what is true of the rows as they are
WAIT_S = 60.0
SHOWN_WORDS = 32  # of a text with a hidden word: a longer one might lose its mask to max_length
PROMPT_WORDS = 8
SHOWN_TAGS = 16
MORE = {
    "masked_lm": {"top": 3},
    "causal_lm": {"max_new_tokens": 24},
    "denoising": {"max_new_tokens": 24},
    "captioning": {"max_new_tokens": 24},
}  # beside the texts
Pairs = list[tuple[Any, Any]]  # what is asked (a text or two), what people said


def ask(job: Job, endpoint: Any, store_rel: str) -> list[dict[str, Any]]:
    """Rows one by one: several pictures or a video each may be more than one request holds. Rows that are larger than `serve.max_body_bytes` by
    themselves are said and left out. Raises UserError where the endpoint does not answer."""
    task = job.spec.model.task
    (version,) = endpoint.versions.values()
    folder = job.storage.fetch(version["package"])
    store, reads = TokenStore.open(job.storage, store_rel), job.spec.model.reads
    pairs = questions(task, store, folder, labels=job.spec.outputs, reads=reads)
    if not pairs:
        return []
    found, room = [], job.spec.serve.max_body_bytes
    with job.console.stage("predict"):
        for sent, wanted in pairs:
            body = json.dumps({**_body(KINDS[task], sent), **MORE.get(task, {})}).encode()
            if len(body) > room:
                job.console.say(f"predict: a test row of {len(body):,} bytes is not sent: serve.max_body_bytes={room}")
                continue
            said = _post(job, f"{endpoint.url}{KINDS[task].path}", body)
            found.append({"text": shown(sent), "wanted": wanted, "model": said["model"], **said["results"][0]})
    return found


def _body(kind: Kind, sent: Any) -> dict[str, Any]:
    return {"rows": [sent]} if isinstance(sent, dict) else kind.body([sent])


def shown(sent: Any) -> str:
    """A question in words: its text, and what else was sent."""
    if isinstance(sent, str):
        return sent
    if isinstance(sent, tuple):
        return " | ".join(sent)
    return " + ".join([*([sent["text"]] if "text" in sent else []), *(f"({kind})" for kind in sent if kind != "text")])


def _post(job: Job, url: str, body: bytes) -> Any:
    import httpx

    token = os.environ.get(job.spec.serve.token_env or "", "")
    headers = {"content-type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    try:
        answer = httpx.post(url, content=body, headers=headers, timeout=WAIT_S)
        answer.raise_for_status()
    except httpx.HTTPError as error:
        raise UserError(f"the endpoint {url} did not answer: {error}") from error
    return answer.json()


def questions(
    task: str, store: TokenStore, folder: Path, *, labels: Sequence[str], reads: tuple[str, ...] = ("text",)
) -> Pairs:
    """(text to send, what people said) of the first test rows that make one."""
    split: Any = store.split("test")
    rows = list(range(min(QUESTIONS if task not in (*LANGUAGE, "denoising") else 50, len(split))))
    texts: list[Any] = _paired(split, rows, folder) if store.pairs else split.texts(rows)
    if store.packed:
        texts = _unpacked(split, rows, folder)
    if reads != ("text",):
        texts = sendable(stored_rows(split, rows, reads), rate=store.meta["spec"]["audio"]["rate"])
    if task == "classification":
        return [(text, labels[int(split.labels[row])]) for row, text in zip(rows, texts, strict=True)]
    if task in CAPTIONED:
        return [({kind: part for kind, part in row.items() if kind != "text"}, row.get("text", "")) for row in texts]
    if task in COMPARED:
        return [(text, "") for text in texts]
    if task == "heads":
        parts = parted(list(labels)).items()
        told = [{h: names[k] for h, names in parts if (k := int(split.heads[h][row])) >= 0} for row in rows]
        return list(zip(texts, told, strict=True))
    if task == "regression":
        return [(text, float(split.values[row])) for row, text in zip(rows, texts, strict=True)]
    if task == "tagging":
        tags = [[labels[tag] for tag in row.tolist() if tag >= 0] for row in split.targets(rows)]
        return list(zip(texts, tags, strict=True))
    if task == "spans":
        return list(zip(texts, _answers(split, rows, folder), strict=True))
    if task in PAIRED:
        return [(pair, FOLLOWS[task]) for pair in texts[:QUESTIONS]]
    if task == "seq2seq":
        decode = _decoder(folder)
        return [(text, decode(row.tolist())) for text, row in zip(texts, split.targets(rows), strict=True)]
    mark = mask_token(folder) if task == "masked_lm" else hole(folder) if task == "denoising" else ""
    made = [_asked(text, mark) for text in texts]
    return [pair for pair in made if pair is not None][:QUESTIONS]


def _asked(sent: Any, mark: str) -> tuple[Any, str] | None:
    """A text, or a row with one, that lacks a word or its second half; and what it lacks."""
    text = sent if isinstance(sent, str) else sent.get("text", "")
    found = hidden(text, mark) if mark else begun(text)
    return found if found is None or isinstance(sent, str) else ({**sent, "text": found[0]}, found[1])


def _decoder(folder: Path) -> Callable[[list[int]], str]:
    from tokenizers import Tokenizer

    decode: Callable[[list[int]], str] = Tokenizer.from_file(str(folder / "tokenizer.json")).decode
    return decode


def _paired(split: Any, rows: list[int], folder: Path) -> list[tuple[str, str]]:
    """Both texts of each row: the store keeps the second one as tokens alone."""
    decode, pairs = _decoder(folder), zip(split.input_ids(rows), split.pair_at(rows), strict=True)
    return [(decode(ids[:at].tolist()), decode(ids[at:].tolist())) for ids, at in pairs]


def _answers(split: Any, rows: list[int], folder: Path) -> list[str]:
    decode, pairs = _decoder(folder), zip(split.input_ids(rows), split.targets(rows), strict=True)
    return [decode(ids[span[0] : span[1] + 1].tolist()) or "none" for ids, span in pairs]


def _unpacked(split: Any, rows: list[int], folder: Path) -> list[str]:
    """The first text of each packed row: a packed store keeps tokens alone."""
    decode, pairs = _decoder(folder), zip(split.input_ids(rows), split.segments(rows), strict=True)
    return [decode(ids[: lengths[0]].tolist()) for ids, lengths in pairs]


def hidden(text: str, mask: str) -> tuple[str, str] | None:
    """The text's beginning with one word hidden, and that word: the one in the middle, of those with three letters."""
    shown = " ".join(text.split()[:SHOWN_WORDS])
    words = list(re.finditer(r"\w{3,}", shown))
    if not words or mask in shown:
        return None
    word = words[len(words) // 2]
    return f"{shown[: word.start()]}{mask}{shown[word.end() :]}", word.group()


def begun(text: str) -> tuple[str, str] | None:
    """The first half of a text, a few words at most, and as many that followed; None where there is no second half."""
    words = text.split()
    count = min(PROMPT_WORDS, len(words) // 2)
    return (" ".join(words[:count]), " ".join(words[count : 2 * count])) if count else None


def line(task: str, one: dict[str, Any]) -> str:
    """A question with its answer, for people."""
    text, wanted = repr(one["text"][:80]), one["wanted"]
    if task == "classification":
        return f"{one['label']:>9} {one['scores'][one['label']]:.2f} (people: {wanted})  {text}"
    if task == "matching":
        return f"{one['match']:>9.2f} match  {text}"
    if task == "contrastive":
        cosine = sum(a * b for a, b in zip(*one["vectors"].values(), strict=True)) if len(one["vectors"]) == 2 else 0.0
        return f"{cosine:>9.3f} cosine of its parts  {text}"
    if task == "heads":
        told = ", ".join(f"{head} {found['label']} {found['score']:.2f}" for head, found in one["heads"].items())
        return f"{told} (people: {', '.join(wanted.values())})  {text}"
    if task == "regression":
        return f"{one['value']:>9.3f} (people: {wanted:.3f})  {text}"
    if task == "tagging":
        told = " ".join(f"{word['word']}/{word['tag']}" for word in one["words"][:SHOWN_TAGS])
        return f"{told} (people: {' '.join(wanted[:SHOWN_TAGS])})"
    if task == "spans":
        return f"{one['answer'] or 'none'} (people: {wanted})  {text}"
    if task in PAIRED:
        return f"{FOLLOWS[task]} {one['probability']:.2f} (people: {wanted})  {text}"
    if task == "masked_lm":
        told = ", ".join(f"{found['token']} {found['probability']:.2f}" for mask in one["masks"] for found in mask)
        return f"{told} (hidden: {wanted})  {one['text']!r}"
    meant = (
        f" (people: {wanted})"
        if task in ("seq2seq", *CAPTIONED)
        else f" (hidden: {wanted})"
        if task == "denoising"
        else ""
    )
    return f"{text} -> {one['sequences'][0]['text']!r}{meant}"
