from __future__ import annotations

from typing import Any

import pytest
import torch

from models.families import ModelError
from models.fusion import Cross, Decision, Fused, Fusion, Gated, build
from models.layers import length_mask, masked_softmax

WIDTHS = {"text": 6, "image": 10, "audio": 4}
LENGTHS = {"text": 5, "image": 3, "audio": 7}
KINDS = ["concat", "gated", "product", "interactive", "transformer", "cross", "decision"]


def _build(kind: str, widths: dict[str, int] = WIDTHS, **changes: Any) -> Fusion:
    torch.manual_seed(1)
    fusion = build(kind, widths, 8, heads=2, classes=3, **changes)
    with torch.no_grad():  # large enough that a wrong mask shows
        for parameter in fusion.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return fusion.eval()


def _features(rows: int = 4, seed: int = 2) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Rows of all lengths from 1; nothing is missing."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (
            torch.randn(rows, LENGTHS[name], width, generator=generator),
            length_mask(torch.randint(1, LENGTHS[name] + 1, (rows,), generator=generator), LENGTHS[name]),
        )
        for name, width in WIDTHS.items()
    }


def _outputs(fused: Fused) -> list[torch.Tensor]:
    return [x for x in (fused.tokens_BLD, fused.pooled_BD, fused.logits_BK) if x is not None]


def _close(found: Fused, wanted: Fused) -> bool:
    pairs = list(zip(_outputs(found), _outputs(wanted), strict=True))
    return bool((found.mask_BL == wanted.mask_BL).all()) and all(torch.allclose(*pair, atol=1e-5) for pair in pairs)


@pytest.mark.parametrize("kind", KINDS)
def test_modalities_of_other_widths_and_lengths_become_one(kind: str) -> None:
    features = _features()
    fused = _build(kind)(features)
    assert fused.tokens_BLD.shape == (4, 15, 8)
    assert torch.equal(fused.mask_BL, torch.cat([mask for _, mask in features.values()], dim=1))
    assert not fused.tokens_BLD[~fused.mask_BL].any()
    assert fused.pooled_BD.shape == (4, 8)
    assert (fused.logits_BK is not None) == (kind == "decision")
    assert float(fused.pooled_BD.detach().std(0).min()) > 1e-3  # rows differ


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_the_inputs_is_of_no_matter_and_each_modality_is(kind: str) -> None:
    fusion, features = _build(kind), _features()
    wanted = fusion(features)
    assert _close(fusion(dict(reversed(features.items()))), wanted)
    for name in WIDTHS:
        changed = {**features, name: (features[name][0] + torch.randn(WIDTHS[name]), features[name][1])}
        assert not torch.allclose(fusion(changed).pooled_BD, wanted.pooled_BD, atol=1e-3), name


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_gives_the_same_alone_without_its_padding(kind: str) -> None:
    fusion, features = _build(kind), _features()
    fused = fusion(features)
    for row in range(4):
        alone = fusion(
            {
                name: (tokens[row : row + 1, mask[row]], mask[row : row + 1, mask[row]])
                for name, (tokens, mask) in features.items()
            }
        )
        assert torch.allclose(alone.pooled_BD[0], fused.pooled_BD[row], atol=1e-5)
        assert torch.allclose(alone.tokens_BLD[0], fused.tokens_BLD[row, fused.mask_BL[row]], atol=1e-5)


@pytest.mark.parametrize("missing", list(WIDTHS))
@pytest.mark.parametrize("kind", KINDS)
def test_where_a_modality_is_missing_nothing_depends_on_what_stands_there(kind: str, missing: str) -> None:
    fusion, features = _build(kind), _features()
    tokens_BLD, mask_BL = features[missing]
    full = fusion(features)
    mask_BL[1] = False  # in one row
    without = fusion(features)
    assert not torch.allclose(without.pooled_BD[1], full.pooled_BD[1], atol=1e-4)
    assert torch.allclose(without.pooled_BD[[0, 2, 3]], full.pooled_BD[[0, 2, 3]], atol=1e-5)
    for value in (0.0, 1e30, float("nan"), float("inf")):
        tokens_BLD[1] = value
        assert _close(fusion(features), without), value
    gone = {name: value for name, value in features.items() if name != missing}  # in all rows
    assert torch.allclose(fusion(gone).pooled_BD[1], without.pooled_BD[1], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_without_anything_is_finite_and_gradients_are_too(kind: str) -> None:
    fusion, features = _build(kind), _features()
    for tokens_BLD, mask_BL in features.values():
        mask_BL[2] = False
        tokens_BLD[2] = float("nan")
    fused = fusion(features)
    assert all(torch.isfinite(output).all() for output in _outputs(fused))
    sum(output.square().sum() for output in _outputs(fused)).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in fusion.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_takes_part_even_where_a_modality_is_missing_from_the_batch(kind: str) -> None:
    fusion, features = _build(kind), _features()
    sum(output.square().sum() for output in _outputs(fusion({"image": features["image"]}))).backward()
    assert all(parameter.grad is not None for parameter in fusion.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_what_only_both_modalities_together_say(kind: str) -> None:
    """Exclusive or of two signs, except where the way to fuse cannot: a mean of decisions gets the sum of two signs."""
    torch.manual_seed(3)
    sign_BM = torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]]).repeat(8, 1)
    labels_B = (sign_BM.sum(1) > 0 if kind == "decision" else sign_BM.prod(1) > 0).long()
    fusion = build(kind, {"a": 3, "b": 5}, 16, classes=2).train()
    head = torch.nn.Sequential(torch.nn.GELU(), torch.nn.Linear(16, 2))
    features = {
        name: (
            sign_BM[:, i, None, None] * torch.ones(32, 2, width) + 0.1 * torch.randn(32, 2, width),
            torch.ones(32, 2),
        )
        for i, (name, width) in enumerate({"a": 3, "b": 5}.items())
    }
    optimizer = torch.optim.AdamW([*fusion.parameters(), *head.parameters()], lr=1e-2)
    for _ in range(60):
        fused = fusion(features)
        logits_BK = head(fused.pooled_BD) if fused.logits_BK is None else fused.logits_BK
        loss = torch.nn.functional.cross_entropy(logits_BK, labels_B)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float((logits_BK.argmax(1) == labels_B).float().mean()) == 1.0


def test_a_token_of_cross_attention_reads_the_other_modality_and_not_its_own() -> None:
    torch.manual_seed(6)
    cross = build("cross", {"a": 3, "b": 5}, 8, heads=2, depth=1).eval()
    assert isinstance(cross, Cross)
    a, b = torch.randn(1, 4, 3), torch.randn(1, 2, 5)
    ones = {"a": torch.ones(1, 4), "b": torch.ones(1, 2)}
    before = cross({"a": (a, ones["a"]), "b": (b, ones["b"])}).tokens_BLD[0]
    a[0, 0] += torch.randn(3)
    after = cross({"a": (a, ones["a"]), "b": (b, ones["b"])}).tokens_BLD[0]
    changed = [not torch.allclose(x, y, atol=1e-4) for x, y in zip(before, after, strict=True)]
    assert changed == [True, False, False, False, True, True]  # itself, and all of b
    b[0, 1] += torch.randn(5)
    last = cross({"a": (a, ones["a"]), "b": (b, ones["b"])}).tokens_BLD[0]
    changed = [not torch.allclose(x, y, atol=1e-4) for x, y in zip(after, last, strict=True)]
    assert changed == [True, True, True, True, False, True]


def test_gates_share_out_each_value_among_what_is_there() -> None:
    fusion, features = _build("gated", {"text": 6, "image": 10}), _features()
    assert isinstance(fusion, Gated)
    pair = {name: features[name] for name in ("text", "image")}
    pair["image"][1][0] = False
    fused = fusion(pair)
    tokens_BLD, mask_BL = pair["text"]
    mean_D = fusion.projections[0](tokens_BLD[0, mask_BL[0]]).mean(0)
    assert torch.allclose(fused.pooled_BD[0], fusion.say[0](mean_D).tanh(), atol=1e-5)  # alone it has all of the gate
    scores_BMD, present_BM = torch.randn(5, 2, 8), torch.ones(5, 2, dtype=torch.bool)
    gate_BMD = masked_softmax(scores_BMD, present_BM)
    assert torch.allclose(gate_BMD[:, 0], (scores_BMD[:, 0] - scores_BMD[:, 1]).sigmoid(), atol=1e-6)  # the paper's z
    assert torch.allclose(gate_BMD.sum(1), torch.ones(5, 8), atol=1e-6)


def test_the_vector_of_a_transformer_is_its_cls_which_a_row_without_anything_has_too() -> None:
    fusion, features = _build("transformer"), _features()
    full = fusion(features)
    same = [torch.allclose(full.pooled_BD[0], token, atol=1e-4) for token in full.tokens_BLD[0]]
    assert not any(same)
    for _, mask_BL in features.values():
        mask_BL[:2] = False
    pooled_BD = fusion(features).pooled_BD
    assert torch.allclose(pooled_BD[0], pooled_BD[1], atol=1e-6)
    assert float(pooled_BD[0].detach().abs().max()) > 0.1


@pytest.mark.parametrize("kind", ["interactive", "transformer"])
def test_tokens_that_are_equal_in_two_modalities_are_told_apart_by_their_modality(kind: str) -> None:
    fusion = _build(kind, {"a": 3, "b": 3})
    fusion.projections[1].load_state_dict(fusion.projections[0].state_dict())
    pair = (torch.randn(1, 2, 3), torch.ones(1, 2))
    tokens_LD = fusion({"a": pair, "b": pair}).tokens_BLD[0]
    assert not torch.allclose(tokens_LD[:2], tokens_LD[2:], atol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_all_runs_on_the_inputs_device_and_in_bf16(kind: str) -> None:
    """The meta device stands for a GPU: a tensor left on the CPU would be refused."""
    fusion = _build(kind).train()
    wanted = fusion.eval()(_features()).pooled_BD
    found = fusion.bfloat16()(_features()).pooled_BD
    assert found.dtype == torch.bfloat16
    assert torch.allclose(found.float(), wanted, atol=0.1, rtol=0.1)
    fused = fusion.train().to("meta")({name: (x.to("meta"), m.to("meta")) for name, (x, m) in _features().items()})
    assert fused.pooled_BD.device.type == "meta"


def test_products_tell_pairs_apart_with_a_linear_head_and_sums_do_not() -> None:
    """All pairs of four things with four others, right where they have the same number, with right and wrong ones of equal weight: each thing
    is in as many right ones as any other, so a sum of what each says alone is left with the loss of a coin."""
    things_PM = torch.cartesian_prod(torch.arange(4), torch.arange(4))
    labels_P = (things_PM[:, 0] == things_PM[:, 1]).long()
    weight_K = torch.tensor([1.0, 3.0])
    found = {}
    for kind in ("concat", "product"):
        torch.manual_seed(4)
        fusion, head = build(kind, {"a": 4, "b": 4}, 16).train(), torch.nn.Linear(16, 2)
        features = {
            name: (torch.eye(4)[things_PM[:, i], None], torch.ones(16, 1).bool()) for i, name in enumerate("ab")
        }
        optimizer = torch.optim.AdamW([*fusion.parameters(), *head.parameters()], lr=3e-2)
        for _ in range(150):
            logits_PK = head(fusion(features).pooled_BD)
            loss = torch.nn.functional.cross_entropy(logits_PK, labels_P, weight=weight_K)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        found[kind] = float(loss.detach())
    assert found["product"] < 0.05
    assert found["concat"] == pytest.approx(0.6931, abs=0.01)


def test_decisions_are_averaged_with_learned_weights() -> None:
    fusion, features = _build("decision"), _features()
    assert isinstance(fusion, Decision)
    alone_BMK = torch.stack([fusion({name: value}).logits_BK for name, value in features.items()], dim=1)
    for weights in ([0.0, 0.0, 0.0], [1.0, 0.0, -2.0]):
        with torch.no_grad():
            fusion.weights.weight.copy_(torch.tensor(weights)[:, None])
        part_M = torch.tensor(weights).softmax(0)
        wanted_BK = (part_M[:, None] * alone_BMK).sum(1)
        found = fusion(features).logits_BK
        assert found is not None
        assert torch.allclose(found, wanted_BK, atol=1e-5)
    alone_BMD = torch.stack([fusion({name: value}).pooled_BD for name, value in features.items()], dim=1)
    assert torch.allclose(fusion(features).pooled_BD, (part_M[:, None] * alone_BMD).sum(1), atol=1e-5)


def test_what_cannot_be_fused_is_refused_by_name() -> None:
    features = _features()
    with pytest.raises(
        ModelError,
        match="fusion 'sum' is not known; there are: concat, gated, product, interactive, transformer, cross, decision",
    ):
        build("sum", WIDTHS, 8)
    with pytest.raises(ModelError, match="needs classes"):
        build("decision", WIDTHS, 8)
    with pytest.raises(ModelError, match="two modalities, and got text alone"):
        build("cross", {"text": 6}, 8)
    with pytest.raises(ModelError, match="needs modalities"):
        build("concat", {}, 8)
    with pytest.raises(ModelError, match="width of 8 cannot be split into 3 heads"):
        build("transformer", WIDTHS, 8, heads=3)
    fusion = _build("concat")
    with pytest.raises(ModelError, match="got video; it was built for text, image, audio"):
        fusion({"video": features["text"]})
    with pytest.raises(ModelError, match="got no modality"):
        fusion({})
    with pytest.raises(
        ModelError, match=r"image has tokens \(4, 5, 6\) and mask \(4, 5\); they should be \(4, L, 10\)"
    ):
        fusion({"text": features["text"], "image": features["text"]})
    with pytest.raises(ModelError, match="audio has tokens"):
        fusion({"text": features["text"], "audio": (features["audio"][0], features["text"][1])})
