"""A memory of facts that a causal language model asks before each token that it gives: the nearest neighbours of where it stands, among all places inside
the facts (Khandelwal et al. 2020, arXiv 1911.00172, kNN-LM). Nothing is trained for it. `memorize` reads the facts with the trained model once, at
export; `attach` puts what it found into the model, so evaluation and `generate` (cached or not) ask it at every token.

A place is a beginning of some fact: what the model makes of it (the input of its output layer) is the key, the tokens that follow there the
values, so that facts which begin alike share keys. A neighbour weighs exp(-squared distance / temperature) for each time that a token follows, less
what the first place beyond the neighbours would weigh: the weight of the last one goes to 0 before another takes its place, and rounding
changes no answer. Share and temperature are those with the least loss on validation rows. Search is exact, one product with all
keys. B rows, L tokens, D width, V entries of the vocabulary, U places, K neighbours, Q queries."""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
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
SHARES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
TEMPERATURES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)  # in distances of the first place beyond the neighbours
FAINT = 1e-6  # of a neighbour's full weight: where all together weigh less, the model's own word counts


class Recall(nn.Module):
    """`keys_UD`; `begins_U1`: where in `tokens_E`, `counts_E` each place's next tokens stand."""

    share, temperature = 0.0, 1.0
    silent = False

    def __init__(self, keys_UD: Any, begins_U1: Any, tokens_E: Any, counts_E: Any, neighbours: int) -> None:
        super().__init__()
        self.neighbours = neighbours
        found = {"keys_UD": keys_UD, "begins_U1": begins_U1, "tokens_E": tokens_E, "counts_E": counts_E}
        for (name, values), kind in zip(found.items(), (np.float32, np.int64, np.int64, np.float32), strict=True):
            self.register_buffer(name, torch.from_numpy(np.asarray(values, kind)), persistent=False)
        self.register_buffer("square_U", self.keys_UD.square().sum(-1), persistent=False)

    def forward(self, hidden_QD: torch.Tensor, logits_QV: torch.Tensor) -> torch.Tensor:
        """Log-probabilities of the next token, (Q, V) fp32."""
        size = max(1, NUMBERS // logits_QV.shape[-1])
        parts = zip(hidden_QD.split(size), logits_QV.split(size), strict=True)
        return torch.cat([self._mixed(hidden_PD, logits_PV) for hidden_PD, logits_PV in parts])

    def _mixed(self, hidden_PD: torch.Tensor, logits_PV: torch.Tensor) -> torch.Tensor:
        told_PV, sure_P1 = self.next(*self.near(hidden_PD), logits_PV.shape[-1], self.temperature)
        own_PV = logits_PV.float().log_softmax(-1) + torch.log1p(-self.share * sure_P1)
        return torch.logaddexp(own_PV, (self.share * told_PV).log())

    @torch.no_grad()
    def near(self, hidden_QD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The nearest places, (Q, K + 1), and their squared distances; the last one is the first beyond the neighbours, at no end of distance
        where there are no more places."""
        hidden_QD = hidden_QD.float()
        count = min(self.neighbours + 1, len(self.keys_UD))
        parts = hidden_QD.split(max(1, NUMBERS // len(self.keys_UD)))
        place_QK = torch.cat(
            [(self.square_U - 2 * part @ self.keys_UD.T).topk(count, largest=False)[1] for part in parts]
        )
        # By the difference itself: of the product's rounding nothing is left of small distances.
        distance_QK = torch.stack([(self.keys_UD[k_Q] - hidden_QD).square().sum(-1) for k_Q in place_QK.unbind(1)], 1)
        distance_QK, order_QK = distance_QK.sort(1)
        place_QK = place_QK.gather(1, order_QK)
        if count > self.neighbours:
            return place_QK, distance_QK
        return nn.functional.pad(place_QK, (0, 1)), nn.functional.pad(distance_QK, (0, 1), value=float("inf"))

    @torch.no_grad()
    def next(
        self, place_QK: torch.Tensor, distance_QK: torch.Tensor, size: int, temperature: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the neighbours say of each next token, (Q, V), and how much they say, (Q, 1): the sum of it, just below 1."""
        far_QK = (distance_QK[:, :1] - distance_QK) / temperature
        weight_QK = (far_QK.exp() - far_QK[:, -1:].exp())[:, :-1].clamp(min=0)
        place_N, weight_N = place_QK[:, :-1].flatten(), weight_QK.flatten()
        size_N = self.begins_U1[place_N + 1] - self.begins_U1[place_N]
        first_N = size_N.cumsum(0) - size_N
        at_E = torch.arange(int(size_N.sum())) + (self.begins_U1[place_N] - first_N).repeat_interleave(size_N)
        query_E = (torch.arange(len(place_N)) // weight_QK.shape[1]).repeat_interleave(size_N)
        told_QV = torch.zeros(len(place_QK), size)
        said_E = weight_N.repeat_interleave(size_N) * self.counts_E[at_E]
        told_QV.index_put_((query_E, self.tokens_E[at_E]), said_E, accumulate=True)
        whole_Q1 = told_QV.sum(1, keepdim=True)
        return told_QV / (whole_Q1 + FAINT), whole_Q1 / (whole_Q1 + FAINT)


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
    keys_UD: Any = None
    numbers = sorted(wanted, key=lambda number: len(facts[number]))
    size = model.get_output_embeddings().out_features  # type: ignore[operator]
    for some in _batches(numbers, [len(facts[number]) for number in numbers], size):
        hidden_BLD, _ = _read(model, [facts[number] for number in some], pad_id)
        if keys_UD is None:
            keys_UD = np.empty((len(where), hidden_BLD.shape[-1]), np.float16)
        for row_LD, number in zip(hidden_BLD, some, strict=True):
            places = [place for _, place in wanted[number]]
            keys_UD[places] = row_LD[[at for at, _ in wanted[number]]].numpy()
    nexts = list(following.values())
    recall = Recall(
        keys_UD,
        np.cumsum([0, *map(len, nexts)]),
        [token for found in nexts for token in found],
        [count for found in nexts for count in found.values()],
        neighbours,
    )
    _weigh(recall, model, asked, pad_id)
    return recall


def _weigh(recall: Recall, model: nn.Module, held: Sequence[Sequence[int]], pad_id: int) -> None:
    """Sets share and temperature."""
    own, told = [], []
    scale = 0.0
    rows_N, size = sorted(held, key=len), model.get_output_embeddings().out_features  # type: ignore[operator]
    for rows in _batches(rows_N, list(map(len, rows_N)), size):
        hidden_BLD, logits_BLV = _read(model, rows, pad_id)
        asked_BL = torch.zeros(hidden_BLD.shape[:2], dtype=torch.bool)
        for number, row in enumerate(rows):
            asked_BL[number, : len(row) - 1] = True
        target_Q1 = torch.tensor([token for row in rows for token in row[1:]])[:, None]
        logits_QV = logits_BLV[asked_BL]
        near = recall.near(hidden_BLD[asked_BL])
        scale = scale or _scale(near[1])  # of the shortest rows, and the same for all
        own.append(logits_QV.float().softmax(-1).gather(1, target_Q1))
        said_TQ2 = []
        for temperature in TEMPERATURES:
            said_QV, sure_Q1 = recall.next(*near, size, scale * temperature)
            said_TQ2.append(torch.cat([said_QV.gather(1, target_Q1), sure_Q1], 1))
        told.append(torch.stack(said_TQ2))
    own_Q1, told_TQ2 = torch.cat(own), torch.cat(told, 1)
    losses = {
        (share, scale * temperature): -float(
            ((1 - share * said_Q2[:, 1]) * own_Q1[:, 0] + share * said_Q2[:, 0]).log().mean()
        )
        for temperature, said_Q2 in zip(TEMPERATURES, told_TQ2, strict=True)
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
    """In place: the output layer gives log-probabilities with what the memory says mixed in."""
    layer = model.get_output_embeddings()
    layer.add_module(CHILD, recall)
    layer.register_forward_hook(_mixed)


def _mixed(layer: nn.Module, args: tuple[torch.Tensor, ...], logits: torch.Tensor) -> torch.Tensor:
    recall: Any = layer.get_submodule(CHILD)
    if recall.silent:
        return logits
    found_QV = recall(args[0].flatten(0, -2), logits.flatten(0, -2))
    return found_QV.view(logits.shape)  # type: ignore[no-any-return]


def silence(model: Any) -> None:
    """The model says what it would without its memory."""
    model.get_output_embeddings().get_submodule(CHILD).silent = True


def write(recall: Recall, folder: Path) -> None:
    held = io.BytesIO()
    parts = {name: getattr(recall, name).numpy() for name in ("begins_U1", "tokens_E", "counts_E")}
    parts["keys_UD"] = recall.keys_UD.numpy().astype(np.float16)  # three digits are enough to tell places apart
    weights = np.array([recall.share, recall.temperature])
    np.savez(held, weights=weights, neighbours=np.array(recall.neighbours), **parts)
    (folder / FILE).write_bytes(held.getvalue())


def told(recall: Recall) -> dict[str, float]:
    """For a report."""
    return {"places": len(recall.keys_UD), "share": recall.share, "temperature": recall.temperature}


def read(folder: Path) -> Recall:
    """Raises ModelError where the file is missing."""
    path = Path(folder) / FILE
    if not path.is_file():
        raise ModelError(f"{path}: missing; a language model with a memory has its facts there")
    with np.load(path, allow_pickle=False) as found:
        keys_UD, begins_U1, tokens_E, counts_E = (
            found[name] for name in ("keys_UD", "begins_U1", "tokens_E", "counts_E")
        )
        recall = Recall(keys_UD, begins_U1, tokens_E, counts_E, int(found["neighbours"]))
        recall.share, recall.temperature = (float(value) for value in found["weights"])
    return recall
