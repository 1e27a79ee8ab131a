"""A memory of facts that a causal language model asks before each token that it gives: the nearest neighbours of where it stands, among all places inside
the facts (Khandelwal et al. 2020, arXiv 1911.00172, kNN-LM). Nothing is trained for it. `memorize` reads the facts with the trained model once, at
export; `attach` puts what it found into the model, so evaluation and `generate` (cached or not) ask it at every token.

A place is a beginning of some fact: what the model makes of it (the input of its output layer) is the key, the tokens that follow there the
values, so that facts which begin alike share keys; the mean of all keys is taken off, for what all have in common would round away what sets them
apart. A neighbour weighs exp(-squared distance / temperature) for each time that a token follows, less
what the first place beyond the neighbours would weigh: the weight of the last one goes to 0 before another takes its place, so
that rounding changes little. Share and temperature are those with the least loss on validation rows; a memory that helps none has share 0. Search is exact: one product with all
keys, and of the best of those the distances themselves. B rows, L tokens, D width, V entries of the vocabulary, U places, K neighbours, Q queries."""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from models.families import ModelError
from models.processing import collate

FILE = "memory.npz"  # in a package
CHILD = "recall"
NUMBERS = 32_000_000  # logits or products held at once: 128 MB
SPARE = 16  # candidates beyond twice the neighbours, of which exact distances choose
SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
TEMPERATURES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)  # in distances of the first place beyond the neighbours
WIDE = 8  # next tokens of a place, where many are counted on
PARTS: dict[str, Any] = {
    "center_D": np.float32,
    "keys_UD": np.float32,
    "begins_U1": np.int64,
    "tokens_E": np.int64,
    "counts_E": np.float32,
}
FAINT = 1e-6  # of a neighbour's full weight: where all together weigh less, the model's own word counts


class Recall(nn.Module):
    """`keys_UD`: what is left of them without `center_D`; `begins_U1`: where in `tokens_E`, `counts_E` each place's next tokens stand."""

    share, temperature = 0.0, 1.0
    silent = False

    def __init__(self, parts: Mapping[str, Any], neighbours: int) -> None:
        """`parts`: an array for each name of PARTS."""
        super().__init__()
        self.neighbours = neighbours
        for name, kind in PARTS.items():
            self.register_buffer(name, torch.from_numpy(np.asarray(parts[name], kind)), persistent=False)
        self.register_buffer("square_U", self.keys_UD.square().sum(-1), persistent=False)

    def forward(self, hidden_QD: torch.Tensor, logits_QV: torch.Tensor) -> torch.Tensor:
        """Log-probabilities of the next token, (Q, V) fp32."""
        size = max(1, NUMBERS // max(logits_QV.shape[-1], WIDE * self.neighbours))
        parts = zip(hidden_QD.split(size), logits_QV.split(size), strict=True)
        return torch.cat([self._mixed(hidden_PD, logits_PV) for hidden_PD, logits_PV in parts])

    def _mixed(self, hidden_PD: torch.Tensor, logits_PV: torch.Tensor) -> torch.Tensor:
        query_E, token_E, said_E, sure_P = self.next(*self.near(hidden_PD), self.temperature)
        told_PV = torch.zeros_like(logits_PV, dtype=torch.float32)
        told_PV.index_put_((query_E, token_E), said_E, accumulate=True)
        own_PV = logits_PV.float().log_softmax(-1) + torch.log1p(-self.share * sure_P)[:, None]
        return torch.logaddexp(own_PV, (self.share * told_PV).log())

    @torch.no_grad()
    def near(self, hidden_QD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The nearest places, (Q, K + 1), and their squared distances; the last one is the first beyond the neighbours, at no end of distance
        where there are no more places."""
        hidden_QD = hidden_QD.float() - self.center_D
        count = min(2 * self.neighbours + SPARE, len(self.keys_UD))
        parts = hidden_QD.split(max(1, NUMBERS // len(self.keys_UD)))
        with torch.autocast(hidden_QD.device.type, enabled=False):
            place_QK = torch.cat(
                [(self.square_U - 2 * part @ self.keys_UD.T).topk(count, largest=False)[1] for part in parts]
            )
        # By the difference itself: of the product's rounding nothing is left of small distances.
        distance_QK = torch.stack([(self.keys_UD[k_Q] - hidden_QD).square().sum(-1) for k_Q in place_QK.unbind(1)], 1)
        distance_QK, order_QK = distance_QK.sort(dim=1, stable=True)
        place_QK = place_QK.gather(1, order_QK)
        if count > self.neighbours:
            return place_QK[:, : self.neighbours + 1], distance_QK[:, : self.neighbours + 1]
        return nn.functional.pad(place_QK, (0, 1)), nn.functional.pad(distance_QK, (0, 1), value=float("inf"))

    @torch.no_grad()
    def next(
        self, place_QK: torch.Tensor, distance_QK: torch.Tensor, temperature: float
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """What the neighbours say: query, token and probability of each that follows them (E), and the sum a query (Q,), just below 1."""
        far_QK = (distance_QK[:, :1] - distance_QK) / temperature
        weight_QK = (far_QK.exp() - far_QK[:, -1:].exp())[:, :-1].clamp(min=0)
        place_N, weight_N = place_QK[:, :-1].flatten(), weight_QK.flatten()
        size_N = self.begins_U1[place_N + 1] - self.begins_U1[place_N]
        first_N = size_N.cumsum(0) - size_N
        where = place_N.device
        at_E = torch.arange(int(size_N.sum()), device=where)
        at_E += (self.begins_U1[place_N] - first_N).repeat_interleave(size_N)
        query_E = (torch.arange(len(place_N), device=where) // weight_QK.shape[1]).repeat_interleave(size_N)
        said_E = weight_N.repeat_interleave(size_N) * self.counts_E[at_E]
        whole_Q = said_E.new_zeros(len(place_QK)).index_add(0, query_E, said_E)
        return query_E, self.tokens_E[at_E], said_E / (whole_Q + FAINT)[query_E], whole_Q / (whole_Q + FAINT)


def memorize(
    model: nn.Module, facts: Sequence[Sequence[int]], held: Sequence[Sequence[int]], *, neighbours: int, pad_id: int
) -> Recall:
    """`facts`: token ids of each, as the model reads a row. `held`: rows that it was not trained on, which say how much the memory is worth. Raises
    ModelError where no fact has two tokens, or no row of those has."""
    following: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
    where: dict[tuple[int, ...], tuple[int, int]] = {}
    for number, fact in enumerate(facts):
        for at in range(1, len(fact)):
            begin = tuple(fact[:at])
            following[begin][fact[at]] += 1
            where.setdefault(begin, (number, at - 1))
    asked = [row for row in held if len(row) > 1]
    if not following or not asked:
        raise ModelError("model.memory: there is no fact of two tokens or more, or no validation row to weigh it by")
    wanted: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for place, (number, at) in enumerate(where.values()):
        wanted[number].append((at, place))
    keys_UD: Any = None  # fp32 until their mean is known
    numbers = sorted(wanted, key=lambda number: len(facts[number]))
    size = max(int(model.get_output_embeddings().out_features), WIDE * neighbours)  # type: ignore[operator]
    for some in _batches(numbers, [len(facts[number]) for number in numbers], size):
        hidden_BLD, _ = _read(model, [facts[number] for number in some], pad_id)
        if keys_UD is None:
            keys_UD = np.empty((len(where), hidden_BLD.shape[-1]), np.float32)
        for row_LD, number in zip(hidden_BLD, some, strict=True):
            places = [place for _, place in wanted[number]]
            keys_UD[places] = row_LD[[at for at, _ in wanted[number]]].numpy()
    nexts = list(following.values())
    center_D = keys_UD.mean(0)
    parts = {
        "center_D": center_D,
        "keys_UD": (keys_UD - center_D).astype(np.float16),  # three digits are enough to tell places apart
        "begins_U1": np.cumsum([0, *map(len, nexts)]),
        "tokens_E": [token for found in nexts for token in found],
        "counts_E": [count for found in nexts for count in found.values()],
    }
    recall = Recall(parts, neighbours)
    _weigh(recall, model, asked, pad_id, size)
    return recall


def _weigh(recall: Recall, model: nn.Module, held: Sequence[Sequence[int]], pad_id: int, size: int) -> None:
    """Sets share and temperature. `size`: of what is held a token."""
    own, told = [], []
    scale = 0.0
    rows_N = sorted(held, key=len)
    for rows in _batches(rows_N, list(map(len, rows_N)), size):
        hidden_BLD, logits_BLV = _read(model, rows, pad_id)
        asked_BL = torch.zeros(hidden_BLD.shape[:2], dtype=torch.bool)
        for number, row in enumerate(rows):
            asked_BL[number, : len(row) - 1] = True
        target_Q = torch.tensor([token for row in rows for token in row[1:]])
        logits_QV = logits_BLV[asked_BL]
        near = recall.near(hidden_BLD[asked_BL])
        scale = scale or _scale(near[1])  # of the shortest rows, and the same for all
        own.append(logits_QV.float().softmax(-1).gather(1, target_Q[:, None])[:, 0])
        said_T2Q = []
        for temperature in TEMPERATURES:
            query_E, token_E, said_E, sure_Q = recall.next(*near, scale * temperature)
            right_E = said_E * (token_E == target_Q[query_E])
            said_T2Q.append(torch.stack([torch.zeros_like(sure_Q).index_add(0, query_E, right_E), sure_Q]))
        told.append(torch.stack(said_T2Q))
    own_Q, told_T2Q = torch.cat(own), torch.cat(told, 2)
    losses = {
        (share, scale * temperature): -float(((1 - share * sure_Q) * own_Q + share * said_Q).log().mean())
        for temperature, (said_Q, sure_Q) in zip(TEMPERATURES, told_T2Q, strict=True)
        for share in SHARES
    }
    recall.share, recall.temperature = min(losses, key=losses.__getitem__)


def _scale(distance_QK: torch.Tensor) -> float:
    """How far the first place beyond the neighbours usually is; without one, the last neighbour."""
    last_Q = distance_QK[:, -1]
    last_Q = last_Q if bool(last_Q.isfinite().all()) else distance_QK[:, -2]
    return max(float(last_Q.median()), 1e-6)


def _batches(rows: Sequence[Any], lengths: Sequence[int], size: int) -> Iterator[Sequence[Any]]:
    """`rows` by rising length, as many at once as give NUMBERS logits of `size` entries a token."""
    at = 0
    while at < len(rows):
        end = at + 1
        while end < len(rows) and (end + 1 - at) * lengths[end] * size <= NUMBERS:
            end += 1
        yield rows[at:end]
        at = end


@torch.no_grad()
def _read(model: Any, rows: Sequence[Sequence[int]], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs of the output layer (B, L, D) and its logits (B, L, V), without any memory."""
    seen: list[torch.Tensor] = []
    hook = model.get_output_embeddings().register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    ids_BL, mask_BL = collate(rows, pad_id)
    try:
        logits_BLV = model(input_ids=ids_BL, attention_mask=mask_BL).logits
    finally:
        hook.remove()
    return seen[0], logits_BLV


def attach(model: Any, recall: Recall) -> None:
    """In place: the output layer gives log-probabilities with what the memory says mixed in, or its own logits where that is nothing."""
    layer = model.get_output_embeddings()
    layer.add_module(CHILD, recall)
    layer.register_forward_hook(_through)


def _through(layer: nn.Module, args: tuple[torch.Tensor, ...], logits: torch.Tensor) -> torch.Tensor:
    recall: Any = layer.get_submodule(CHILD)
    if recall.silent or not recall.share:
        return logits
    found_QV = recall(args[0].flatten(0, -2), logits.flatten(0, -2))
    return found_QV.view(logits.shape)  # type: ignore[no-any-return]


def silence(model: Any) -> None:
    """The model says what it would without its memory."""
    model.get_output_embeddings().get_submodule(CHILD).silent = True


def write(recall: Recall, folder: Path) -> None:
    held = io.BytesIO()
    parts = {name: getattr(recall, name).numpy() for name in PARTS}
    parts["keys_UD"] = parts["keys_UD"].astype(np.float16)  # exactly what they were made of
    weights = np.array([recall.share, recall.temperature])
    np.savez(held, weights=weights, neighbours=np.array(recall.neighbours), **parts)
    (folder / FILE).write_bytes(held.getvalue())


def told(folder: Path) -> dict[str, float]:
    """For a report; keys are not read."""
    with np.load(Path(folder) / FILE, allow_pickle=False) as found:
        share, temperature = (float(value) for value in found["weights"])
        return {"places": len(found["begins_U1"]) - 1, "share": share, "temperature": temperature}


def read(folder: Path) -> Recall:
    """Raises ModelError where the file is missing."""
    path = Path(folder) / FILE
    if not path.is_file():
        raise ModelError(f"{path}: missing; a language model with a memory has its facts there")
    with np.load(path, allow_pickle=False) as found:
        recall = Recall({name: found[name] for name in PARTS}, int(found["neighbours"]))
        recall.share, recall.temperature = (float(value) for value in found["weights"])
    return recall
