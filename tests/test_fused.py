"""The fast Perceiver: transformers' weights, outputs and gradients, computed in other ways."""

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
import transformers
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import layer_norm
from transformers import (
    PerceiverConfig,
    PerceiverForImageClassificationConvProcessing,
    PerceiverForImageClassificationFourier,
    PerceiverForImageClassificationLearned,
    PerceiverForMaskedLM,
    PerceiverForMultimodalAutoencoding,
    PerceiverForOpticalFlow,
    PerceiverForSequenceClassification,
    PerceiverModel,
)
from transformers.models.perceiver import modeling_perceiver
from transformers.models.perceiver.modeling_perceiver import (
    PerceiverClassificationDecoder,
    PerceiverImagePreprocessor,
    PerceiverSelfAttention,
    PerceiverTextPreprocessor,
)

from maed.embedding import PositionEmbedding
from maed.integrations import replace_positions
from maed.models import ClassifierConfig, build_classifier
from maed.models.fused import FusedAttention, Joined, Summed, fuse, pooling, pooling_pays
from maed.models.fused.pooling import by_length, keeping, pool, pool_sums, real_lengths, unpadded
from maed.settings import PerceiverSettings

N, BATCH, LABELS = 24, 5, 3

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use"),
        ],
    ),
]


def perceiver(**changes: Any) -> PerceiverConfig:
    sizes = {
        "d_model": 16,
        "num_latents": 6,
        "d_latents": 32,
        "num_self_attends_per_block": 2,
        "num_self_attention_heads": 2,
        "num_cross_attention_heads": 1,
        "attention_probs_dropout_prob": 0.0,
        "vocab_size": 20,
        "max_position_embeddings": N,
        "image_size": 8,
        "num_labels": LABELS,
    }
    return PerceiverConfig(**{**sizes, **changes})


def built(model_class: Callable[[PerceiverConfig], Any], **changes: Any) -> Any:
    """A model no weight of which is what it would be without training: not the norms' ones, not the biases' zeros."""
    torch.manual_seed(0)
    model = model_class(perceiver(**changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return model


def texts() -> Tensor:
    return torch.randint(20, (BATCH, N), generator=torch.Generator().manual_seed(1))


def images(side: int = 8) -> Tensor:
    return torch.randn(BATCH, 3, side, side, generator=torch.Generator().manual_seed(1))


def pools(model: Any, positions: int) -> bool:
    """Whether the latents of a fused model attend to so many inputs without keys and values."""
    attention = model.perceiver.encoder.cross_attention.attention.self
    return pooling_pays(
        positions=positions,
        latents=model.config.num_latents,
        heads=attention.num_heads,
        channels=attention.key.in_features,
        qk=attention.qk_channels,
        v=attention.v_channels,
    )


def assert_close(actual: Tensor, expected: Tensor, what: str = "logits") -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5, msg=lambda said: f"{what}: {said}")


def assert_equal_gradients(fused: nn.Module, plain: nn.Module) -> None:
    for (name, expected), parameter in zip(plain.named_parameters(), fused.parameters(), strict=True):
        if expected.grad is None:
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None, name
            assert_close(parameter.grad, expected.grad, name)


def backward(logits: Tensor) -> Tensor:
    """Gradients that differ from signal to signal and label to label."""
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(2)).to(logits.device)
    (logits * weights).mean().backward()
    return logits


def assert_equal_in_all(plain: nn.Module, fused: nn.Module, **inputs: Any) -> None:
    """Logits, and the gradients of all parameters."""
    assert_close(backward(fused(**inputs).logits), backward(plain(**inputs).logits))
    assert_equal_gradients(fused, plain)


# What transformers computes.

LENGTHS = torch.tensor([N, 3, 17, 1, 9])

MASKS: dict[str, Tensor | None] = {
    "no-mask": None,
    "nothing-masked": torch.ones(BATCH, N, dtype=torch.int64),
    "padded": (torch.arange(N) < LENGTHS[:, None]).long(),
    "padded-in-front": (torch.arange(N) >= N - LENGTHS[:, None]).long(),
    "holes": (torch.rand(BATCH, N, generator=torch.Generator().manual_seed(3)) < 0.5).long(),
}

SHAPES = {
    # whether no keys and values are made, and the changes of the config
    "few-latents": (True, {}),
    "many-latents": (False, {"num_latents": 70}),
    "few-latents-heads": (True, {"num_latents": 4, "num_cross_attention_heads": 2}),
    "many-latents-heads": (False, {"num_latents": 30, "num_cross_attention_heads": 4, "num_self_attention_heads": 4}),
    "few-latents-channels": (True, {"qk_channels": 8, "v_channels": 32}),
    "many-latents-channels": (False, {"num_latents": 70, "qk_channels": 8, "v_channels": 32}),
    "two-blocks": (True, {"num_blocks": 2}),
}


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("model_class", [PerceiverForSequenceClassification, PerceiverForMaskedLM])
def test_texts_have_transformers_logits_and_gradients(model_class: type, shape: str, mask: str, device: str) -> None:
    few, changes = SHAPES[shape]
    plain = built(model_class, **changes).to(device)
    fused = fuse(copy.deepcopy(plain))
    assert pools(fused, N) == few
    seen = MASKS[mask]

    assert_equal_in_all(
        plain, fused, inputs=texts().to(device), attention_mask=None if seen is None else seen.to(device)
    )


IMAGES = {
    "learned": (PerceiverForImageClassificationLearned, 8, {}),
    "fourier": (PerceiverForImageClassificationFourier, 8, {}),
    "convolutions": (PerceiverForImageClassificationConvProcessing, 32, {}),
    "learned-heads": (PerceiverForImageClassificationLearned, 8, {"num_cross_attention_heads": 4}),
    "fourier-heads": (PerceiverForImageClassificationFourier, 8, {"num_cross_attention_heads": 3, "d_latents": 48}),
}
images_of = pytest.mark.parametrize(("model_class", "side", "changes"), IMAGES.values(), ids=IMAGES)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("latents", [2, 130])
@images_of
def test_images_have_transformers_logits_and_gradients(
    model_class: type, side: int, changes: dict[str, int], latents: int, device: str
) -> None:
    plain = built(model_class, num_latents=latents, **changes).to(device)
    fused = fuse(copy.deepcopy(plain))
    assert pools(fused, 64) == (latents == 2)

    assert_equal_in_all(plain, fused, inputs=images(side).to(device))


def test_images_that_are_not_contiguous_are_images_too() -> None:
    plain = built(PerceiverForImageClassificationLearned)
    fused = fuse(copy.deepcopy(plain))

    assert_equal_in_all(plain, fused, inputs=images().transpose(2, 3))


@pytest.mark.xfail(
    transformers.__version__.startswith("5.0."), raises=RuntimeError, reason="5.0 itself keeps the table's sides"
)
def test_positions_may_be_of_other_sides_than_the_table() -> None:
    plain = built(PerceiverForImageClassificationLearned)
    fused = fuse(copy.deepcopy(plain))

    assert_equal_in_all(plain, fused, inputs=images(12), interpolate_pos_encoding=True)


def test_of_large_latents_less_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = built(PerceiverForSequenceClassification, num_blocks=3)
    models = [plain, fuse(copy.deepcopy(plain)), fuse(copy.deepcopy(plain))]
    kept = []
    for model, large in zip(models, (2**20, 2**20, 1), strict=True):
        monkeypatch.setattr("maed.models.fused.perceiver._LARGE", large)
        found: dict[int, int] = {}

        def note(tensor: Tensor, found: dict[int, int] = found) -> Tensor:
            found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            backward(model(inputs=texts()).logits)
        kept.append(sum(found.values()))

    for model in models[1:]:
        assert_equal_gradients(model, plain)
    assert kept[2] < 0.9 * kept[1] < kept[0]


@pytest.mark.parametrize(
    "part", ["layernorm", "mlp.dense1", "mlp.dense2", "mlp.intermediate_act_fn", "attention.self.layernorm1"]
)
def test_hooks_of_a_layer_are_called_once(monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    monkeypatch.setattr("maed.models.fused.perceiver._LARGE", 1)
    model = fuse(built(PerceiverForSequenceClassification))
    calls: list[None] = []
    layer = model.perceiver.encoder.self_attends[0].get_submodule(part)
    layer.register_forward_hook(lambda *_: calls.append(None))

    backward(model(inputs=texts()).logits)

    assert len(calls) == model.config.num_blocks


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.uint8])
@pytest.mark.parametrize("latents", [6, 70])
def test_masks_may_be_of_any_type(dtype: torch.dtype, latents: int) -> None:
    plain = built(PerceiverForSequenceClassification, num_latents=latents)
    fused = fuse(copy.deepcopy(plain))

    assert_equal_in_all(plain, fused, inputs=texts(), attention_mask=MASKS["padded"].to(dtype))


@pytest.mark.parametrize("latents", [6, 70])
def test_the_bias_of_keys_that_are_never_made_has_a_gradient_of_zeros(latents: int) -> None:
    fused = fuse(built(PerceiverForSequenceClassification, num_latents=latents))

    backward(fused(inputs=texts()).logits)

    bias = fused.perceiver.encoder.cross_attention.attention.self.key.bias.grad
    assert bias.abs().max() < 1e-5  # None would stop DistributedDataParallel
    assert pools(fused, N) == (not bias.any())


@pytest.mark.parametrize("latents", [6, 70])
def test_attentions_can_be_looked_at(latents: int) -> None:
    plain = built(PerceiverForSequenceClassification, num_latents=latents)
    fused = fuse(copy.deepcopy(plain))
    arguments = {"inputs": texts(), "attention_mask": MASKS["padded"], "output_attentions": True}

    expected, found = plain(**arguments), fused(**arguments)

    assert_close(found.logits, expected.logits)
    for kind in ("attentions", "cross_attentions"):
        for one, other in zip(found[kind], expected[kind], strict=True):
            assert_close(one, other, kind)


def test_attentions_to_images_can_be_looked_at() -> None:
    plain = built(PerceiverForImageClassificationLearned)
    fused = fuse(copy.deepcopy(plain))

    expected, found = (model(inputs=images(), output_attentions=True) for model in (plain, fused))

    assert_close(found.logits, expected.logits)
    assert_close(found.cross_attentions[0], expected.cross_attentions[0])


def test_hidden_states_are_those_of_transformers() -> None:
    plain = built(PerceiverForSequenceClassification)
    fused = fuse(copy.deepcopy(plain))

    expected, found = (model(inputs=texts(), output_hidden_states=True).hidden_states for model in (plain, fused))

    assert len(found) == len(expected) == 3
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other)


# Signals that are masked in part, or altogether.


@pytest.mark.parametrize("latents", [6, 70])
def test_a_signal_does_not_depend_on_those_beside_it(latents: int) -> None:
    fused = fuse(built(PerceiverForSequenceClassification, num_latents=latents))
    mask = MASKS["padded"].clone()
    mask[2] = 0  # masked altogether

    together = fused(inputs=texts(), attention_mask=mask).logits

    for i in range(BATCH):
        assert_close(together[i], fused(inputs=texts()[i : i + 1], attention_mask=mask[i : i + 1]).logits[0])
    assert_close(together[2], fused(inputs=texts()).logits[2])


@pytest.mark.parametrize("latents", [6, 70])
def test_what_is_masked_at_the_end_does_not_get_through(latents: int) -> None:
    model = built(PerceiverForSequenceClassification, num_latents=latents)
    with torch.no_grad():
        model.perceiver.input_preprocessor.embeddings.weight[7] = float("nan")
    inputs = texts() % 7
    expected = fuse(model)(inputs=inputs, attention_mask=MASKS["padded"]).logits

    found = model(inputs=inputs.where(MASKS["padded"].bool(), 7), attention_mask=MASKS["padded"]).logits[:1]

    assert expected.isfinite().all()
    assert_close(found, expected[:1])


def attention(**changes: Any) -> tuple[PerceiverSelfAttention, PerceiverSelfAttention]:
    """Cross-attention from 32 channels to 16, as transformers has it, and fused."""
    sizes = {"is_cross_attention": True, "q_dim": 32, "kv_dim": 16, "qk_channels": 16, "num_heads": 2, **changes}
    torch.manual_seed(0)
    plain = PerceiverSelfAttention(perceiver(), **sizes)
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return plain, fuse(copy.deepcopy(plain))


def queries(latents: int, batch: int = BATCH) -> Tensor:
    return torch.randn(batch, latents, 32, generator=torch.Generator().manual_seed(4))


def inputs_of(batch: int = BATCH) -> Tensor:
    return torch.randn(batch, N, 16, generator=torch.Generator().manual_seed(5))


few_and_many = pytest.mark.parametrize("latents", [3, 70])


@few_and_many
@pytest.mark.parametrize("shape", [(1, 1, 1, N), (BATCH, 1, 1, N), ("L", N), (BATCH, 2, "L", N)])
def test_masks_may_be_of_any_shape_that_scores_can_be_added_to(shape: tuple, latents: int) -> None:
    plain, fused = attention()
    sizes = [latents if size == "L" else size for size in shape]
    mask = torch.randn(sizes, generator=torch.Generator().manual_seed(6))
    arguments = queries(latents), None, inputs_of(), mask.masked_fill(mask < -1, torch.finfo(torch.float32).min)

    assert_close(backward(fused(*arguments)[0]), backward(plain(*arguments)[0]), "context")
    assert_equal_gradients(fused, plain)


@few_and_many
def test_masks_that_are_trained_are_trained(latents: int) -> None:
    plain, fused = attention()
    gradients = []
    for model in (plain, fused):
        bias = torch.zeros(1, 1, 1, N, requires_grad=True)
        backward(model(queries(latents), None, inputs_of(), bias)[0])
        gradients.append(bias.grad)

    assert gradients[0].abs().max() > 1e-3
    assert_close(gradients[1], gradients[0])


@few_and_many
def test_masks_of_another_length_are_refused(latents: int) -> None:
    _, fused = attention()
    for n in (N - 1, N + 1):
        with pytest.raises(RuntimeError, match="size"):
            fused(queries(latents), None, inputs_of(), torch.eye(n)[:BATCH, None, None].log())


@few_and_many
def test_queries_that_all_signals_share_are_projected_once_and_have_their_gradient(latents: int) -> None:
    plain, fused = attention()
    gradients = []
    for model in (plain, fused):
        query = queries(latents, batch=1).requires_grad_()
        backward(model(query.expand(BATCH, -1, -1), None, inputs_of())[0])
        gradients.append(query.grad)
    widths: list[int] = []
    fused.layernorm1.register_forward_hook(lambda module, arguments, output: widths.append(len(output)))
    fused(queries(latents, batch=1).expand(BATCH, -1, -1), None, inputs_of())

    assert_close(gradients[1], gradients[0])
    assert_equal_gradients(fused, plain)
    assert widths == [1]


@few_and_many
def test_inputs_need_be_neither_contiguous_nor_differentiable(latents: int) -> None:
    plain, fused = attention()
    inputs = inputs_of().transpose(1, 2).contiguous().transpose(1, 2)[:, ::2]
    gradients = []
    for model in (plain, fused):
        arguments = inputs.detach().requires_grad_()
        backward(model(queries(latents), None, arguments)[0])
        gradients.append(arguments.grad)

    assert_close(fused(queries(latents), None, inputs)[0], plain(queries(latents), None, inputs)[0])
    assert_close(gradients[1], gradients[0])
    assert_equal_gradients(fused, plain)


@few_and_many
@pytest.mark.parametrize("mask", [None, torch.zeros(0, 1, 1, N)], ids=["no-mask", "mask"])
def test_a_batch_may_be_empty(mask: Tensor | None, latents: int) -> None:
    _, fused = attention()
    inputs = inputs_of(0).requires_grad_()

    context = fused(queries(latents, 0), None, inputs, mask)[0]
    context.sum().backward()

    assert context.shape == (0, latents, 16)
    assert inputs.grad.shape == inputs.shape
    assert not fused.query.weight.grad.any()


def test_a_second_derivative_is_refused_rather_than_wrong() -> None:
    _, fused = attention()
    query = queries(3).requires_grad_()
    (first,) = torch.autograd.grad(fused(query, None, inputs_of())[0].square().sum(), query, create_graph=True)

    with pytest.raises(RuntimeError, match=r"backward through maed.pool_backward"):
        first.sum().backward()


# What others do to a model.


class Adapted(nn.Linear):
    """A projection that does more than its weight says, as LoRA's does."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x[..., :1]


@few_and_many
@pytest.mark.parametrize("name", ["query", "key", "value"])
def test_projections_of_other_classes_are_called(name: str, latents: int) -> None:
    plain, fused = attention()
    for model in (plain, fused):
        getattr(model, name).__class__ = Adapted
    arguments = queries(latents), None, inputs_of()

    assert_close(backward(fused(*arguments)[0]), backward(plain(*arguments)[0]), "context")
    assert_equal_gradients(fused, plain)


@few_and_many
@pytest.mark.parametrize("name", ["query", "key", "value", "layernorm2"])
def test_hooks_of_parts_are_called(name: str, latents: int) -> None:
    plain, fused = attention()
    for model in (plain, fused):
        getattr(model, name).register_forward_hook(lambda module, arguments, output: output.cos())
    arguments = queries(latents), None, inputs_of()

    assert_close(fused(*arguments)[0], plain(*arguments)[0], "context")


def test_hooks_of_parts_see_images_that_are_joined() -> None:
    plain = built(PerceiverForImageClassificationLearned)
    fused = fuse(copy.deepcopy(plain))
    for model in (plain, fused):
        key = model.perceiver.encoder.cross_attention.attention.self.key
        key.register_forward_hook(lambda module, arguments, output: output.cos())

    assert_close(fused(inputs=images()).logits, plain(inputs=images()).logits)


def attentions(model: nn.Module) -> list[nn.Module]:
    return [part for part in model.modules() if isinstance(part, PerceiverSelfAttention)]


def test_fusing_changes_no_name_and_no_weight() -> None:
    plain = built(PerceiverForSequenceClassification)
    before = {name: tensor.clone() for name, tensor in plain.state_dict().items()}

    fused = fuse(plain)

    assert fused is plain
    assert list(fused.state_dict()) == list(before)
    assert all(torch.equal(tensor, before[name]) for name, tensor in fused.state_dict().items())
    assert all(isinstance(part, FusedAttention) for part in attentions(fused))


def test_fusing_twice_is_fusing_once() -> None:
    once = fuse(built(PerceiverForImageClassificationLearned))
    twice = fuse(copy.deepcopy(once))

    assert [type(part) for part in twice.modules()] == [type(part) for part in once.modules()]
    assert torch.equal(twice(inputs=images()).logits, once(inputs=images()).logits)


@pytest.mark.parametrize(
    "again", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["copy", "pickle"]
)
def test_a_copy_of_a_fused_model_is_fused(again: Callable[[Any], Any]) -> None:
    fused = fuse(built(PerceiverForImageClassificationLearned))

    copied = again(fused)

    assert all(isinstance(part, FusedAttention) for part in attentions(copied))
    assert isinstance(copied.perceiver.input_preprocessor(images())[0], Summed)
    assert torch.equal(copied(inputs=images()).logits, fused(inputs=images()).logits)


@pytest.mark.parametrize(
    ("model_class", "batch"),
    [(PerceiverForSequenceClassification, texts()), (PerceiverForImageClassificationLearned, images())],
    ids=["text", "image"],
)
def test_a_fused_model_is_saved_as_a_plain_one(model_class: Any, batch: Tensor, tmp_path: Path) -> None:
    fused = fuse(built(model_class))

    fused.save_pretrained(tmp_path)
    plain = model_class.from_pretrained(tmp_path)

    assert plain.config.architectures == [model_class.__name__]
    assert not any(isinstance(part, FusedAttention) for part in plain.modules())
    assert_close(fused(inputs=batch).logits, plain(inputs=batch).logits)


def test_a_bare_model_is_saved_under_its_own_name(tmp_path: Path) -> None:
    plain = built(lambda config: PerceiverModel(config, input_preprocessor=PerceiverTextPreprocessor(config)))
    fused = fuse(copy.deepcopy(plain))

    fused.save_pretrained(tmp_path)

    assert PerceiverConfig.from_pretrained(tmp_path).architectures == ["PerceiverModel"]
    assert_close(fused(texts()).last_hidden_state, plain(texts()).last_hidden_state)


@pytest.mark.parametrize(
    ("model_class", "n", "batch"),
    [
        (PerceiverForSequenceClassification, N, texts()),
        (PerceiverForImageClassificationLearned, 64, images()),
        (PerceiverForImageClassificationFourier, 64, images()),
    ],
    ids=["text", "learned", "fourier"],
)
def test_positions_are_replaced_before_or_after(model_class: Any, n: int, batch: Tensor) -> None:
    embedding = PositionEmbedding(torch.randn(n, 6, generator=torch.Generator().manual_seed(7)), source="invented")
    plain = replace_positions(built(model_class), embedding)

    before = fuse(copy.deepcopy(plain))
    after = replace_positions(fuse(built(model_class)), embedding)

    expected = plain(inputs=batch).logits
    assert_close(before(inputs=batch).logits, expected)
    assert torch.equal(after(inputs=batch).logits, before(inputs=batch).logits)


def ours(architecture: str) -> ClassifierConfig:
    small = PerceiverSettings(latents=4, latent_width=16, layers=1, heads=2, cross_heads=1, dropout=0.0)
    common: dict[str, Any] = {"positions": 16, "classes": ("low", "high"), "encoding": "random", "dim": 8}
    if architecture == "text":
        return ClassifierConfig(kind="tokens", vocabulary=11, perceiver=replace(small, architecture="text"), **common)
    return ClassifierConfig(
        kind="real", channels=3, sides=(4, 4), perceiver=replace(small, architecture=architecture), **common
    )


@pytest.mark.parametrize("architecture", ["maed", "text", "image"])
def test_our_classifiers_are_fused(architecture: str) -> None:
    config = ours(architecture)
    table = torch.randn(16, 8, generator=torch.Generator().manual_seed(8))
    module = "maed" if architecture == "maed" else "_transformers"
    generator = torch.Generator().manual_seed(9)
    real = torch.randn(3, 16, 3, generator=generator)
    values = torch.randint(11, (3, 16), generator=generator) if architecture == "text" else real
    mask = torch.arange(16) < torch.tensor([16, 3, 7])[:, None]

    fused = build_classifier(config, table, seed=0)
    with patch(f"maed.models.architectures.{module}.fuse", lambda model: model):
        plain = build_classifier(config, table, seed=0)

    assert all(isinstance(part, FusedAttention) for part in attentions(fused))
    assert not any(isinstance(part, FusedAttention) for part in attentions(plain))
    for seen in (None, mask):
        assert_close(backward(fused(values, seen)), backward(plain(values, seen)))
    assert_equal_gradients(fused, plain)


# No batch of positions.


@images_of
def test_positions_of_a_batch_are_made_once(model_class: type, side: int, changes: dict[str, int]) -> None:
    plain = built(model_class, **changes)
    fused = fuse(copy.deepcopy(plain))

    expected = plain.perceiver.input_preprocessor(images(side))[0]
    found = fused.perceiver.input_preprocessor(images(side))[0]

    assert isinstance(found, Joined if model_class is PerceiverForImageClassificationConvProcessing else Summed)
    assert len(found.positions) in (1, expected.shape[1])  # not once for each signal
    assert (found.shape, found.size(), found.dtype, found.device) == (
        expected.shape, expected.size(), expected.dtype, expected.device,
    )  # fmt: skip
    assert_close(found.join(), expected, "inputs")


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("embeddings", lambda table: table.register_forward_hook(lambda module, arguments, output: output.cos())),
        (
            "position_embeddings",
            lambda table: table.register_forward_hook(lambda module, arguments, output: output + 1),
        ),
        ("embeddings", lambda table: setattr(table, "padding_idx", 3)),
        ("embeddings", lambda table: setattr(table, "max_norm", 0.5)),
    ],
    ids=["hook", "hook-of-positions", "padding", "norm"],
)
def test_tables_that_do_more_than_look_up_do_it(part: str, change: Callable[[nn.Module], Any]) -> None:
    plain = built(PerceiverForSequenceClassification)
    fused = fuse(copy.deepcopy(plain))
    for model in (plain, fused):
        change(getattr(model.perceiver.input_preprocessor, part))

    assert isinstance(fused.perceiver.input_preprocessor(texts())[0], Tensor)
    assert_equal_in_all(plain, fused, inputs=texts())


@pytest.mark.parametrize("change", [{"padding": 1}, {"stride": 2}], ids=str)
def test_convolutions_of_more_than_single_pixels_are_done(change: dict[str, Any]) -> None:
    plain = built(PerceiverForImageClassificationLearned, image_size=8)
    convolution = plain.perceiver.input_preprocessor.convnet_1x1
    plain.perceiver.input_preprocessor.convnet_1x1 = nn.Conv2d(3, convolution.out_channels, 1, **change)
    fused = fuse(copy.deepcopy(plain))
    side = 6 if "padding" in change else 16

    assert isinstance(fused.perceiver.input_preprocessor(images(side))[0], Joined)
    assert_equal_in_all(plain, fused, inputs=images(side))


def test_what_an_image_tells_of_its_pixels_is_its_gradient() -> None:
    plain = built(PerceiverForImageClassificationLearned)
    fused = fuse(copy.deepcopy(plain))
    gradients = []
    for model in (plain, fused):
        pixels = images().requires_grad_()
        backward(model(inputs=pixels).logits)
        gradients.append(pixels.grad)

    assert_close(gradients[1], gradients[0], "pixels")


def image_model(config: PerceiverConfig, combine: str = "concat", decoder: bool = True) -> PerceiverModel:
    preprocessor = PerceiverImagePreprocessor(
        config,
        prep_type="conv1x1",
        spatial_downsample=1,
        out_channels=16,
        position_encoding_type="trainable",
        concat_or_add_pos=combine,
        trainable_position_encoding_kwargs={"num_channels": 16, "index_dims": 64},
    )
    sizes = {"num_channels": 32, "trainable_position_encoding_kwargs": {"num_channels": 32, "index_dims": 1}}
    decoding = PerceiverClassificationDecoder(config, **sizes) if decoder else None
    return PerceiverModel(config, input_preprocessor=preprocessor, decoder=decoding)


@pytest.mark.parametrize("decoder", [True, False], ids=["decoder", "no-decoder"])
@pytest.mark.parametrize("combine", ["add", "concat"])
def test_positions_that_may_be_asked_for_are_in_plain_tensors(combine: str, decoder: bool) -> None:
    plain = built(lambda config: image_model(config, combine, decoder))
    fused = fuse(copy.deepcopy(plain))

    assert isinstance(fused.input_preprocessor(images())[0], Summed if decoder else Tensor)
    assert_close(
        backward(fused(images()).last_hidden_state), backward(plain(images()).last_hidden_state), "hidden states"
    )
    assert_equal_gradients(fused, plain)


def test_the_flow_between_images_is_decoded_from_plain_tensors() -> None:
    plain = built(PerceiverForOpticalFlow, train_size=[4, 6])
    fused = fuse(copy.deepcopy(plain))
    frames = torch.randn(1, 2, 27, 4, 6, generator=torch.Generator().manual_seed(10))

    assert isinstance(fused.perceiver.input_preprocessor(frames)[0], Tensor)
    torch.testing.assert_close(fused(inputs=frames).logits, plain(inputs=frames).logits, rtol=1e-4, atol=1e-3)


def test_several_kinds_of_inputs_at_once() -> None:
    sizes = {"num_frames": 2, "image_size": 8, "audio_samples_per_frame": 32, "samples_per_patch": 16}
    plain = built(
        PerceiverForMultimodalAutoencoding, **sizes, output_shape=[1, 2, 8, 8], output_num_channels=32,
        _label_trainable_num_channels=64,
    )  # fmt: skip
    fused = fuse(copy.deepcopy(plain))
    rng = torch.Generator().manual_seed(11)
    arguments = {
        "image": torch.randn(1, 2, 3, 8, 8, generator=rng),
        "audio": torch.randn(1, 64, 1, generator=rng),
        "label": torch.zeros(1, LABELS),
    }
    points = {"image": torch.arange(8), "audio": torch.arange(4), "label": None}

    expected, found = (model(inputs=arguments, subsampled_output_points=points).logits for model in (plain, fused))

    assert set(found) == {"image", "audio", "label"}
    for name in found:
        assert_close(found[name], expected[name], name)


# Precision, modes, compilation.


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mask", ["no-mask", "padded"])
@pytest.mark.parametrize("latents", [6, 70])
def test_in_bfloat16_it_is_as_near_to_float32_as_transformers(latents: int, mask: str, device: str) -> None:
    plain = built(PerceiverForSequenceClassification, num_latents=latents).to(device)
    fused = fuse(copy.deepcopy(plain))
    seen = None if MASKS[mask] is None else MASKS[mask].to(device)
    arguments = {"inputs": texts().to(device), "attention_mask": seen}

    def results(model: nn.Module, bf16: bool) -> tuple[Tensor, Tensor]:
        model.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            logits = backward(model(**arguments).logits)
        return logits.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    exact = results(plain, bf16=False)

    for one, other, true in zip(results(fused, bf16=True), results(plain, bf16=True), exact, strict=True):
        error, usual = ((found - true).norm() / true.norm() for found in (one, other))
        assert error < 1.5 * usual + 0.01
        assert error < 0.1


@pytest.mark.parametrize("latents", [6, 70])
def test_weights_may_be_of_bfloat16(latents: int) -> None:
    plain = built(PerceiverForSequenceClassification, num_latents=latents)
    exact = plain(inputs=texts(), attention_mask=MASKS["padded"]).logits

    fused = fuse(plain).to(torch.bfloat16)
    logits = backward(fused(inputs=texts(), attention_mask=MASKS["padded"]).logits)

    assert logits.dtype == torch.bfloat16
    assert (logits.float() - exact).norm() < 0.1 * exact.norm()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("model_class", [PerceiverForSequenceClassification, PerceiverForImageClassificationLearned])
def test_without_gradients_logits_are_the_same(model_class: Any, mode: Callable) -> None:
    fused = fuse(built(model_class))
    batch = texts() if model_class is PerceiverForSequenceClassification else images()

    with mode():
        logits = fused(inputs=batch).logits

    assert not logits.requires_grad
    assert_close(logits, fused(inputs=batch).logits)


@pytest.mark.parametrize("latents", [2, 130])
def test_frozen_weights_get_no_gradients(latents: int) -> None:
    plain = built(PerceiverForImageClassificationLearned, num_latents=latents)
    plain.perceiver.input_preprocessor.requires_grad_(False)
    fused = fuse(copy.deepcopy(plain))

    assert_equal_in_all(plain, fused, inputs=images())


@pytest.mark.slow
@few_and_many
def test_attention_compiles_to_one_graph_with_the_same_results(latents: int) -> None:
    plain, fused = attention()
    torch.compiler.reset()
    arguments = queries(latents), None, inputs_of(), MASKS["padded"].float().log()[:, None, None]

    compiled = torch.compile(fused, backend="aot_eager", fullgraph=True)

    assert_close(backward(compiled(*arguments)[0]), backward(plain(*arguments)[0]), "context")
    assert_equal_gradients(fused, plain)


@pytest.mark.slow
def test_an_image_classifier_compiles_to_one_graph_with_the_same_results() -> None:
    plain = built(PerceiverForImageClassificationLearned, num_self_attends_per_block=1)
    fused = fuse(copy.deepcopy(plain))
    torch.compiler.reset()

    compiled = torch.compile(fused, backend="aot_eager", fullgraph=True)

    assert_close(backward(compiled(inputs=images()).logits), backward(plain(inputs=images()).logits))
    assert_equal_gradients(fused, plain)


# Dropout.


@pytest.mark.parametrize("mask", ["no-mask", "padded"])
@pytest.mark.parametrize("latents", [6, 70])
def test_dropout_drops_in_training_alone(latents: int, mask: str) -> None:
    fused = fuse(built(PerceiverForSequenceClassification, num_latents=latents, attention_probs_dropout_prob=0.3))
    arguments = {"inputs": texts(), "attention_mask": MASKS[mask]}
    assert torch.equal(fused(**arguments).logits, fused(**arguments).logits)

    fused.train()
    torch.manual_seed(0)
    first, second = backward(fused(**arguments).logits), fused(**arguments).logits
    torch.manual_seed(0)
    again = fused(**arguments).logits

    assert torch.equal(first, again)
    assert not torch.allclose(first, second, rtol=1e-2)
    used = [parameter for parameter in fused.parameters() if parameter.grad is not None]
    assert all(parameter.grad.isfinite().all() for parameter in used)
    assert len(used) == sum(1 for _ in fused.parameters())


@few_and_many
def test_on_average_dropout_changes_nothing(latents: int) -> None:
    fused = attention()[1].train()
    same = queries(latents, 1), None, inputs_of(1)
    expected = fused(*same)[0]
    fused.dropout.p = 0.25

    torch.manual_seed(0)
    draws = fused(*(None if part is None else part.repeat(2_000, 1, 1) for part in same))[0]

    error = (draws.mean(dim=0) - expected[0]) / (draws.std(dim=0) / 2_000**0.5)  # in standard errors
    assert error.abs().max() < 5
    assert 0.5 < error.std() < 1.5


@pytest.mark.parametrize("dropout", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_dropouts_factors_are_0_for_a_share_and_otherwise_scale_up(dropout: float) -> None:
    factors = keeping((300, 333), dropout, torch.float64, torch.Generator().manual_seed(12))

    assert factors.shape == (300, 333)
    kept = factors[factors > 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - dropout) if dropout < 1 else 0), rtol=1e-6, atol=0)
    spread = (dropout * (1 - dropout) / factors.numel()) ** 0.5
    assert abs(float((factors == 0).double().mean()) - dropout) <= 5 * spread + 2**-16


def test_dropouts_factors_are_the_generators() -> None:
    draws = [keeping((7,), 0.5, torch.float32, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2, 3)]

    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(torch.cat(draws[1:3]), torch.cat(draws[2:]))


# Pooling.


@st.composite
def pooled(draw: st.DrawFn) -> dict[str, Any]:
    """Signals, queries, shared channels or none, and a mask or none that leaves each signal a position."""
    batch, n, m = draw(st.integers(1, 5)), draw(st.integers(1, 9)), draw(st.integers(1, 4))
    content, shared = draw(st.integers(1, 5)), draw(st.integers(0, 3))
    rng = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng, dtype=torch.float64).requires_grad_()

    mask = None
    if draw(st.booleans()):
        seen = torch.tensor(
            draw(st.lists(st.lists(st.booleans(), min_size=n, max_size=n), min_size=batch, max_size=batch))
        )
        assume(bool(seen.any(dim=1).all()))
        hidden = draw(st.sampled_from([float("-inf"), torch.finfo(torch.float64).min, -3.0]))
        mask = torch.where(seen, torch.randn(batch, n, generator=rng, dtype=torch.float64), hidden)
    return {
        "query": randn(draw(st.sampled_from([1, batch])), m, content + shared),
        "inputs": randn(batch, n, content),
        "mask": mask,
        "positions": randn(n, shared) if shared else None,
    }


@pytest.mark.slow
@given(
    case=pooled(),
    piece=st.sampled_from([1, 20, 100, pooling._PIECE]),
    kept=st.sampled_from([0, pooling._KEPT_BYTES]),
)
@settings(max_examples=150, deadline=None)
def test_pooling_is_a_softmax_over_normalized_inputs(case: dict[str, Any], piece: int, kept: int) -> None:
    query, inputs, mask, positions = (case[name] for name in ("query", "inputs", "mask", "positions"))
    batch = len(inputs)
    joined = inputs if positions is None else torch.cat([inputs, positions.expand(batch, -1, -1)], dim=2)
    x = layer_norm(joined, joined.shape[2:], eps=1e-3)  # (B, N, d)
    scores = query @ x.transpose(1, 2)  # (B, M, N)
    expected = (scores if mask is None else scores + mask[:, None]).softmax(dim=2) @ x
    leaves = [part for part in (query, inputs, positions) if part is not None]
    weights = torch.linspace(-1, 1, expected.numel(), dtype=torch.float64).view(expected.shape)

    with patch.multiple(pooling, _PIECE=piece, _KEPT_BYTES=kept):
        context, mass = pool(**case, eps=1e-3)
        found = torch.autograd.grad((context * weights).sum(), leaves)

    assert mass is None
    torch.testing.assert_close(context, expected, rtol=1e-9, atol=1e-9)
    for one, other in zip(found, torch.autograd.grad((expected * weights).sum(), leaves), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-7)


@pytest.mark.slow
@given(
    case=pooled(),
    seed=st.integers(0, 99),
    piece=st.sampled_from([1, 100]),
    kept=st.sampled_from([0, pooling._KEPT_BYTES]),
)
@settings(max_examples=25, deadline=None)
def test_with_dropout_gradients_are_those_of_what_was_drawn(
    case: dict[str, Any], seed: int, piece: int, kept: int
) -> None:
    names = [name for name in ("query", "inputs", "positions") if case[name] is not None]

    def drawn(*leaves: Tensor) -> tuple[Tensor, Tensor | None]:
        torch.manual_seed(seed)
        return pool(**{**case, **dict(zip(names, leaves, strict=True))}, dropout=0.4, eps=1e-3)

    with patch.multiple(pooling, _PIECE=piece, _KEPT_BYTES=kept):
        assert torch.autograd.gradcheck(drawn, [case[name] for name in names], fast_mode=True)


@st.composite
def summed(draw: st.DrawFn) -> dict[str, Any]:
    """As `pooled`, of tokens or values."""
    case = draw(pooled())
    (batch, n, _), channels = case["inputs"].shape, case["query"].shape[2]
    rng = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    sources = draw(st.integers(1, 4))
    tokens = torch.randint(sources, (batch, n), generator=rng)
    values = torch.randn(batch, n, sources, generator=rng, dtype=torch.float64)
    return {
        "query": case["query"],
        "content": tokens if draw(st.booleans()) else values.requires_grad_(draw(st.booleans())),
        "source": torch.randn(sources, channels, generator=rng, dtype=torch.float64).requires_grad_(),
        "positions": torch.randn(n, channels, generator=rng, dtype=torch.float64).requires_grad_(),
        "mask": case["mask"],
    }


@pytest.mark.slow
@given(
    case=summed(),
    dropout=st.sampled_from([0.0, 0.4]),
    piece=st.sampled_from([1, 800, pooling._PIECE]),
    kept=st.sampled_from([0, pooling._KEPT_BYTES]),
)
@settings(max_examples=100, deadline=None)
def test_sums_that_are_never_made_are_pooled_as_if_they_were(
    case: dict[str, Any], dropout: float, piece: int, kept: int
) -> None:
    query, content, source, positions, mask = case.values()
    made = (content @ source if content.is_floating_point() else source[content]) + positions
    leaves = [part for part in (query, content, source, positions) if part.requires_grad]

    with patch.multiple(pooling, _PIECE=piece, _KEPT_BYTES=kept):
        torch.manual_seed(0)
        expected, expected_mass = pool(query, made, mask, dropout=dropout, eps=1e-3)
        torch.manual_seed(0)
        context, mass = pool_sums(**case, dropout=dropout, eps=1e-3)
        weights = torch.linspace(-1, 1, expected.numel(), dtype=torch.float64).view(expected.shape)
        found, wanted = (torch.autograd.grad((one * weights).sum(), leaves) for one in (context, expected))

    torch.testing.assert_close(context, expected, rtol=1e-9, atol=1e-9)
    assert (mass is None) == (dropout == 0.0)
    if mass is not None:
        torch.testing.assert_close(mass, expected_mass, rtol=1e-9, atol=1e-9)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-7)


def test_with_dropout_the_sums_of_what_is_left_are_given() -> None:
    query, inputs = torch.zeros(1, 1, 4), inputs_of()[:, :, :4]  # scores of 0: every position has 1 / N

    torch.manual_seed(0)
    context, mass = pool(query, inputs, dropout=0.5)

    left = mass * N / 2  # positions that were kept, each with 2 / N
    assert torch.equal(left, left.round())
    assert len(left.unique()) > 1
    assert context.shape == (BATCH, 1, 4)


@pytest.mark.parametrize("piece", [1, pooling._PIECE])
def test_a_signal_that_is_masked_altogether_is_seen_whole(piece: int) -> None:
    query, inputs = torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(13)), inputs_of()[:, :, :4]
    mask = torch.zeros(BATCH, N)
    mask[0, 3:] = mask[1] = torch.finfo(torch.float32).min

    with patch.object(pooling, "_PIECE", piece):
        found, _ = pool(query, inputs, mask)

    whole, _ = pool(query, inputs)
    assert_close(found[1:], whole[1:], "context")
    assert (found[0] - whole[0]).abs().max() > 1e-2


SUMS = [(3, 6), (2, 5), (5, 6)]  # source, scale and positions


@pytest.mark.slow
@pytest.mark.parametrize("content", ["inputs", "tokens", "values"])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_the_operator_is_known_to_torchs_compiler(dropout: float, content: str) -> None:
    query = torch.randn(1, 3, 6, requires_grad=True)
    given = {
        "inputs": (torch.randn(2, 5, 4, requires_grad=True), None, None, torch.randn(5, 2, requires_grad=True)),
        "tokens": (torch.randint(3, (2, 5)), *(torch.rand(*shape, requires_grad=True) for shape in SUMS)),
        "values": (torch.randn(2, 5, 3), *(torch.rand(*shape, requires_grad=True) for shape in SUMS)),
    }[content]
    noise = torch.tensor(14) if dropout else None

    torch.library.opcheck(torch.ops.maed.pool.default, (query, *given, torch.zeros(2, 5), noise, dropout, 1e-5, True))


# Padding.

MIN = torch.finfo(torch.float32).min


@pytest.mark.parametrize(
    ("mask", "length"),
    [
        ([0, 0, 0, 0], 4),
        ([0, 0, MIN, MIN], 2),
        ([0, 0, float("-inf"), float("-inf")], 2),
        ([MIN, 0, MIN, MIN], 2),
        ([MIN, MIN, MIN, 0], 4),
        ([0, MIN, MIN, MIN], 1),
        ([MIN, MIN, MIN, MIN], 4),
        ([5, 0, -3, MIN], 3),
        ([0, -1e3, -1e6, -1e9], 2),
    ],
)
def test_lengths_are_those_of_what_can_be_seen(mask: list[float], length: int) -> None:
    assert real_lengths(torch.tensor([mask])).tolist() == [length]


@pytest.mark.parametrize(
    ("mask", "expected"), [([[0, 0], [0, 0]], True), ([[0, 0], [MIN, MIN]], True), ([[0, 0], [0, MIN]], False)]
)
def test_a_mask_that_treats_all_positions_alike_leaves_out_nothing(mask: list[list[float]], expected: bool) -> None:
    assert unpadded(torch.tensor(mask)) == expected


@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=20),
    width=st.integers(1, 50),
    piece=st.sampled_from([1, 100, 1000, pooling._PIECE]),
)
@example(lengths=[1, 12, 1, 12], width=50, piece=1)
def test_every_signal_is_worked_on_once_and_whole(lengths: list[int], width: int, piece: int) -> None:
    mask = torch.where(torch.arange(12) < torch.tensor(lengths)[:, None], 0.0, MIN)

    with patch.object(pooling, "_PIECE", piece):
        groups = [(rows.tolist(), length) for rows, length in by_length(mask, width)]

    assert sorted(row for rows, _ in groups for row in rows) == list(range(len(lengths)))
    for rows, length in groups:
        assert length == max(lengths[row] for row in rows)
        assert len(rows) == 1 or len(rows) * length * width <= piece


def test_a_mask_has_an_entry_for_each_position_whatever_the_version_of_transformers() -> None:
    fused = fuse(built(PerceiverForSequenceClassification))
    shapes: list[torch.Size] = []

    def look(module: nn.Module, args: tuple, arguments: dict[str, Any]) -> None:
        shapes.append(arguments["inputs_mask"].shape)

    fused.perceiver.encoder.register_forward_pre_hook(look, with_kwargs=True)

    fused(inputs=texts(), attention_mask=MASKS["padded"])
    fused(inputs=texts())

    ready = hasattr(modeling_perceiver, "create_bidirectional_mask")  # 5.0 has no masks that pass through
    assert shapes == [(BATCH, 1, 1, N), (1, 1, 1, 1) if ready else (BATCH, 1, 1, N)]
