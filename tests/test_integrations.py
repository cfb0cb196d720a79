"""Position embeddings inside other models: those of transformers, and plain PyTorch."""

import copy
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import PyTorchModelHubMixin
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file, save_model
from safetensors.torch import load_model as load_tensors
from torch import Tensor, nn
from transformers import (
    ASTConfig,
    ASTForAudioClassification,
    AutoModelForImageClassification,
    BartConfig,
    BartModel,
    BertConfig,
    BertForSequenceClassification,
    BertLMHeadModel,
    BertModel,
    DeiTConfig,
    DeiTForImageClassification,
    Dinov2Config,
    Dinov2ForImageClassification,
    EncoderDecoderModel,
    GPT2Config,
    GPT2ForSequenceClassification,
    PatchTSTConfig,
    PatchTSTForClassification,
    PerceiverConfig,
    PerceiverForImageClassificationConvProcessing,
    PerceiverForImageClassificationFourier,
    PerceiverForImageClassificationLearned,
    PerceiverForMaskedLM,
    PerceiverForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
    T5Config,
    T5Model,
    VideoMAEConfig,
    VideoMAEForVideoClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTMAEConfig,
    ViTMAEForPreTraining,
    ViTModel,
)
from transformers.utils import logging

from maed.data.geometry_spec import parse_geometry
from maed.embedding import PositionEmbedding
from maed.errors import MaedError
from maed.files import read_json
from maed.integrations import AddPositions, TablePositionEncoding, load_model, replace_positions

PAGES = sorted((Path(__file__).parents[1] / "docs" / "integrations").glob("*.md"))

logging.disable_progress_bar()


def perceiver() -> PerceiverConfig:
    return PerceiverConfig(
        d_latents=16,
        num_latents=4,
        d_model=16,
        num_self_attends_per_block=1,
        num_self_attention_heads=2,
        num_cross_attention_heads=1,
        image_size=4,
        max_position_embeddings=12,
        vocab_size=20,
        num_labels=3,
    )


def vision(config: type) -> Any:
    layers = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return config(image_size=8, patch_size=4, num_labels=3, **layers)


def dinov2() -> Dinov2Config:
    return Dinov2Config(
        image_size=8,
        patch_size=4,
        num_labels=3,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        mlp_ratio=1,
    )


def audio() -> ASTConfig:
    layers = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return ASTConfig(patch_size=4, frequency_stride=4, time_stride=4, max_length=8, num_mel_bins=12, **layers)


def masked() -> ViTMAEConfig:
    config = vision(ViTMAEConfig)
    config.decoder_hidden_size, config.decoder_num_hidden_layers, config.decoder_num_attention_heads = 16, 1, 2
    config.decoder_intermediate_size, config.mask_ratio = 16, 0.0  # what is hidden is drawn anew each time
    return config


def series() -> PatchTSTConfig:
    return PatchTSTConfig(
        num_input_channels=2,
        context_length=16,
        patch_length=4,
        patch_stride=4,
        d_model=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        ffn_dim=16,
        use_cls_token=True,
        num_targets=3,
        positional_encoding_type="sincos",
        init_std=0.5,  # its initializer_range
    )


def text(config: type, rows: int) -> Any:
    layers = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return config(vocab_size=20, max_position_embeddings=rows, num_labels=3, **layers)


def gpt2() -> GPT2Config:
    return GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=20, n_positions=10, pad_token_id=0, num_labels=3)


@dataclass
class Consumer:
    """A model, what it reads, and what its position table is like."""

    model_class: type[PreTrainedModel]
    config: Callable[[], Any]
    n: int
    width: int
    key: str
    inputs: tuple[str, tuple[int, ...]]
    kept: int = 0
    where: str | None = None

    def new(self, initializer_range: float = 0.02) -> Any:
        torch.manual_seed(0)
        config = self.config()
        config.initializer_range = initializer_range
        return self.model_class(config).eval()

    def batch(self) -> dict[str, Tensor]:
        torch.manual_seed(1)
        name, shape = self.inputs
        return {name: torch.randn(2, *shape) if len(shape) > 1 else torch.arange(2, 2 + shape[0]).repeat(2, 1)}

    def replace(self, model: Any, embedding: PositionEmbedding | str | Path, **options: Any) -> Any:
        return replace_positions(model, embedding, where=self.where, **options)

    def answer(self, model: Any, **batch: Tensor) -> Tensor:
        output = model(**batch or self.batch())
        return output.prediction_logits if "prediction_logits" in output else output.logits

    def logits(self, model: Any) -> Tensor:
        with torch.no_grad():
            return self.answer(model)

    def rows(self, model: Any) -> Tensor:
        """The table as the model's own weights have it, `(kept + n, width)`."""
        return model.state_dict()[self.key].reshape(-1, self.width).clone()


TRAINABLE = "perceiver.input_preprocessor.position_embeddings"
CONSUMERS = {
    "perceiver-text": Consumer(
        PerceiverForSequenceClassification, perceiver, 12, 16, f"{TRAINABLE}.weight", ("inputs", (12,))
    ),
    "perceiver-language": Consumer(PerceiverForMaskedLM, perceiver, 12, 16, f"{TRAINABLE}.weight", ("inputs", (12,))),
    "perceiver-learned": Consumer(
        PerceiverForImageClassificationLearned,
        perceiver,
        16,
        256,
        f"{TRAINABLE}.position_embeddings",
        ("inputs", (3, 4, 4)),
    ),
    "perceiver-fourier": Consumer(
        PerceiverForImageClassificationFourier, perceiver, 30, 258, f"{TRAINABLE}.table", ("inputs", (3, 6, 5))
    ),
    "perceiver-conv": Consumer(
        PerceiverForImageClassificationConvProcessing, perceiver, 9, 258, f"{TRAINABLE}.table", ("inputs", (3, 16, 16))
    ),
    "vit": Consumer(
        ViTForImageClassification,
        lambda: vision(ViTConfig),
        4,
        16,
        "vit.embeddings.position_embeddings",
        ("pixel_values", (3, 8, 8)),
        kept=1,
    ),
    "deit": Consumer(
        DeiTForImageClassification,
        lambda: vision(DeiTConfig),
        4,
        16,
        "deit.embeddings.position_embeddings",
        ("pixel_values", (3, 8, 8)),
        kept=2,
    ),
    "dinov2": Consumer(
        Dinov2ForImageClassification,
        dinov2,
        4,
        16,
        "dinov2.embeddings.position_embeddings",
        ("pixel_values", (3, 8, 8)),
        kept=1,
    ),
    "vit-mae": Consumer(
        ViTMAEForPreTraining,
        masked,
        4,
        16,
        "vit.embeddings.position_embeddings",
        ("pixel_values", (3, 8, 8)),
        kept=1,
    ),
    "ast": Consumer(
        ASTForAudioClassification,
        audio,
        6,
        16,
        "audio_spectrogram_transformer.embeddings.position_embeddings",
        ("input_values", (8, 12)),
        kept=2,
    ),
    "patchtst": Consumer(
        PatchTSTForClassification,
        series,
        4,
        16,
        "model.encoder.positional_encoder.position_enc",
        ("past_values", (16, 2)),
        kept=1,
    ),
    "bert": Consumer(
        BertForSequenceClassification,
        lambda: text(BertConfig, 10),
        10,
        16,
        "bert.embeddings.position_embeddings.weight",
        ("input_ids", (10,)),
    ),
    "roberta": Consumer(
        RobertaForSequenceClassification,
        lambda: text(RobertaConfig, 12),
        10,
        16,
        "roberta.embeddings.position_embeddings.weight",
        ("input_ids", (10,)),
        kept=2,
    ),
    "gpt2": Consumer(
        GPT2ForSequenceClassification,
        gpt2,
        10,
        16,
        "transformer.wpe.weight",
        ("input_ids", (10,)),
    ),
}
FOURIER = CONSUMERS["perceiver-fourier"]
VIT = CONSUMERS["vit"]
BERT = CONSUMERS["bert"]

every = pytest.mark.parametrize("consumer", CONSUMERS.values(), ids=CONSUMERS.keys())
tabular = pytest.mark.parametrize(
    "consumer",
    [c for c in CONSUMERS.values() if not c.key.endswith(".table")],
    ids=[name for name, c in CONSUMERS.items() if not c.key.endswith(".table")],
)


def embedding_of(n: int, dim: int = 6, seed: int = 3) -> PositionEmbedding:
    vectors = torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))
    vectors = vectors - vectors.mean(dim=0)
    return PositionEmbedding(vectors / vectors.square().mean().sqrt(), source="invented")


def assert_same(logits: Tensor, expected: Tensor) -> None:
    """Equal but for rounding, which depends on where in memory weights lie; these are compared bit by bit elsewhere."""
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-7)


def train_once(consumer: Consumer, model: Any) -> None:
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    consumer.answer(model).square().sum().backward()
    optimizer.step()


# What is put where.


@every
@pytest.mark.parametrize("dim", [6, 300], ids=["into-more-channels", "into-fewer"])
def test_the_table_is_the_embeddings_and_nothing_else_changes(consumer: Consumer, dim: int) -> None:
    model, embedding = consumer.new(), embedding_of(consumer.n, dim)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    returned = consumer.replace(model, embedding, rms=0.3)

    assert returned is model
    assert torch.equal(consumer.rows(model)[consumer.kept :], embedding.table(dim=consumer.width, rms=0.3))
    after = model.state_dict()
    assert set(after) - set(before) <= {consumer.key}  # only Fourier features had none
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items() if name != consumer.key)
    if consumer.key in before:
        rows = before[consumer.key].reshape(-1, consumer.width)
        assert torch.equal(consumer.rows(model)[: consumer.kept], rows[: consumer.kept])


@tabular
def test_by_default_the_new_rows_are_as_loud_as_those_they_replace(consumer: Consumer) -> None:
    model = consumer.new()
    with torch.no_grad():
        dict(model.named_parameters())[consumer.key].mul_(7).add_(0.1)
    old = consumer.rows(model)[consumer.kept :].double()

    consumer.replace(model, embedding_of(consumer.n))

    new = consumer.rows(model)[consumer.kept :].double()
    torch.testing.assert_close(new.square().mean(), old.square().mean(), rtol=1e-6, atol=0)


def test_in_place_of_fourier_features_it_has_their_size() -> None:
    model = FOURIER.new()
    original = model.perceiver.input_preprocessor.position_embeddings
    features = original([6, 5], 1, device=torch.device("cpu"), dtype=torch.float32)

    FOURIER.replace(model, embedding_of(30))

    table = model.perceiver.input_preprocessor.position_embeddings
    assert isinstance(table, TablePositionEncoding)
    assert (table.output_size(), table.num_dimensions) == (original.output_size(), original.num_dimensions) == (258, 2)
    torch.testing.assert_close(table.table.square().mean(), features.square().mean(), rtol=1e-5, atol=0)


@pytest.mark.parametrize(("initializer_range", "expected"), [(0.05, 0.05), (0.0, 1.0)])
def test_a_table_of_zeros_gets_the_size_the_model_would_have_drawn(initializer_range: float, expected: float) -> None:
    model = VIT.new()
    model.config.initializer_range = initializer_range
    nn.init.zeros_(model.vit.embeddings.position_embeddings)

    VIT.replace(model, embedding_of(4))

    assert VIT.rows(model)[1:].square().mean().sqrt().item() == pytest.approx(expected, rel=1e-5)


@every
def test_position_matters(consumer: Consumer) -> None:
    embedding = embedding_of(consumer.n)
    shuffled = PositionEmbedding(embedding.vectors.roll(1, dims=0))

    # with weights of 0.02 attention is all but even, and no model tells one order from another
    models = [consumer.replace(consumer.new(initializer_range=0.5), e) for e in (embedding, shuffled)]

    assert (consumer.logits(models[0]) - consumer.logits(models[1])).abs().max() > 1e-3


@every
def test_dtype_is_kept(consumer: Consumer) -> None:
    model, embedding = consumer.new().to(torch.bfloat16), embedding_of(consumer.n)

    consumer.replace(model, embedding, rms=0.5)

    rows = consumer.rows(model)[consumer.kept :]
    assert rows.dtype == torch.bfloat16
    assert torch.equal(rows, embedding.table(dim=consumer.width, rms=0.5).to(torch.bfloat16))
    batch = {k: v.to(torch.bfloat16) if v.is_floating_point() else v for k, v in consumer.batch().items()}
    assert consumer.answer(model, **batch).dtype == torch.bfloat16


@every
@pytest.mark.parametrize("trainable", [False, True])
def test_training_changes_the_table_only_if_asked(consumer: Consumer, trainable: bool) -> None:
    model = consumer.replace(consumer.new(), embedding_of(consumer.n), trainable=trainable)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}

    train_once(consumer, model)

    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert (consumer.key in changed) is trainable
    assert len(changed) > len(before) / 2


def test_a_gradient_of_the_old_table_does_not_move_the_new_one() -> None:
    model = VIT.new()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(**VIT.batch()).logits.sum().backward()
    before = VIT.rows(VIT.replace(model, embedding_of(4)))

    optimizer.step()

    assert torch.equal(VIT.rows(model), before)


@tabular
def test_initialising_the_model_once_more_does_not_overwrite_it(consumer: Consumer) -> None:
    model = consumer.replace(consumer.new(), embedding_of(consumer.n))
    before = consumer.rows(model)
    for module in model.modules():  # as in a model that is built around it
        module._is_hf_initialized = False

    model.post_init()

    assert torch.equal(consumer.rows(model), before)


def test_initialising_once_more_leaves_the_table_in_place_of_fourier_features() -> None:
    test_initialising_the_model_once_more_does_not_overwrite_it(FOURIER)


# Saving and loading.


@pytest.mark.slow
@every
@pytest.mark.parametrize("trainable", [False, True])
def test_load_model_gives_the_saved_model_back(consumer: Consumer, trainable: bool, tmp_path: Path) -> None:
    model = consumer.replace(consumer.new(), embedding_of(consumer.n), trainable=trainable)
    model.save_pretrained(tmp_path / "once")

    loaded = load_model(consumer.model_class, tmp_path / "once")

    assert type(loaded) is consumer.model_class
    assert not loaded.training
    weights = model.state_dict()
    assert loaded.state_dict().keys() == weights.keys()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in loaded.state_dict().items())
    assert_same(consumer.logits(loaded), consumer.logits(model))
    assert dict(loaded.named_parameters())[consumer.key].requires_grad is trainable
    loaded.save_pretrained(tmp_path / "twice")
    assert_same(consumer.logits(load_model(consumer.model_class, tmp_path / "twice")), consumer.logits(model))
    config = read_json(tmp_path / "twice" / "config.json")
    assert config["architectures"] == [consumer.model_class.__name__]
    assert config["maed_positions"] == model.config.maed_positions


@tabular
def test_plain_from_pretrained_keeps_the_values_but_not_that_they_are_frozen(
    consumer: Consumer, tmp_path: Path
) -> None:
    model = consumer.replace(consumer.new(), embedding_of(consumer.n))
    model.save_pretrained(tmp_path)

    loaded = consumer.model_class.from_pretrained(tmp_path)

    assert_same(consumer.logits(loaded), consumer.logits(model))
    assert loaded.config.maed_positions == model.config.maed_positions
    assert dict(loaded.named_parameters())[consumer.key].requires_grad


def test_plain_from_pretrained_goes_back_to_fourier_features(tmp_path: Path) -> None:
    model = FOURIER.new()
    before = FOURIER.logits(model)
    FOURIER.replace(model, embedding_of(30)).save_pretrained(tmp_path)

    loaded = PerceiverForImageClassificationFourier.from_pretrained(tmp_path)

    assert_same(FOURIER.logits(loaded), before)


@every
def test_a_pretrained_model_in_two_lines(consumer: Consumer, tmp_path: Path) -> None:
    consumer.new().save_pretrained(tmp_path / "model")
    embedding = embedding_of(consumer.n)
    embedding.save_pretrained(tmp_path / "positions")

    model = consumer.model_class.from_pretrained(tmp_path / "model")
    consumer.replace(model, tmp_path / "positions")

    made = consumer.replace(consumer.new(), embedding)
    assert_same(consumer.logits(model), consumer.logits(made))
    assert consumer.rows(model).shape == (consumer.kept + consumer.n, consumer.width)


@every
def test_config_json_tells_where_the_table_came_from(consumer: Consumer, tmp_path: Path) -> None:
    embedding = embedding_of(consumer.n)
    consumer.replace(consumer.new(), embedding, rms=0.25).save_pretrained(tmp_path)

    record = read_json(tmp_path / "config.json")["maed_positions"]

    end = {"embedding": ".weight", "parameter": "", "fourier": ".table"}[record["kind"]]
    assert record.pop("where") + end == consumer.key
    assert record == {
        "kind": record["kind"],
        "label": "maed",
        "source": "invented",
        "fingerprint": embedding.fingerprint,
        "trainable": False,
        "n": consumer.n,
        "dim": consumer.width,
        "rms": 0.25,
        "offset": consumer.kept,
    }


def test_the_record_says_that_geometry_was_used() -> None:
    embedding = PositionEmbedding(torch.randn(16, 6), geometry=parse_geometry("grid:4x4")).resampled("grid:2x2")

    model = VIT.replace(VIT.new(), embedding)

    assert model.config.maed_positions["label"] == "maed-resampled"


def test_a_checkpoint_without_replaced_positions_is_loaded_as_ever(tmp_path: Path) -> None:
    model = VIT.new()
    model.save_pretrained(tmp_path)

    loaded = load_model(ViTForImageClassification, tmp_path, num_labels=3)

    assert type(loaded) is ViTForImageClassification
    assert_same(VIT.logits(loaded), VIT.logits(model))
    assert all(parameter.requires_grad for parameter in loaded.parameters())


@pytest.mark.parametrize("consumer", [FOURIER, VIT], ids=["perceiver-fourier", "vit"])
def test_automatic_classes_load_too(consumer: Consumer, tmp_path: Path) -> None:
    model = consumer.replace(consumer.new(), embedding_of(consumer.n))
    model.save_pretrained(tmp_path)

    loaded = load_model(AutoModelForImageClassification, tmp_path)

    assert type(loaded) is consumer.model_class
    assert_same(consumer.logits(loaded), consumer.logits(model))
    assert not dict(loaded.named_parameters())[consumer.key].requires_grad


def test_a_base_model_gets_a_head_and_loses_it(tmp_path: Path) -> None:
    base = replace_positions(ViTModel(vision(ViTConfig)), embedding_of(4))
    base.save_pretrained(tmp_path / "base")

    headed = load_model(ViTForImageClassification, tmp_path / "base")
    headed.save_pretrained(tmp_path / "headed")
    back = load_model(ViTModel, tmp_path / "headed")

    assert headed.config.maed_positions["where"] == "vit.embeddings.position_embeddings"
    assert not headed.vit.embeddings.position_embeddings.requires_grad
    assert back.config.maed_positions["where"] == "embeddings.position_embeddings"
    assert not back.embeddings.position_embeddings.requires_grad
    assert torch.equal(back.embeddings.position_embeddings, base.embeddings.position_embeddings)


def test_a_loaded_model_can_be_copied_and_takes_other_dtypes(tmp_path: Path) -> None:
    model = FOURIER.replace(FOURIER.new(), embedding_of(30))
    model.save_pretrained(tmp_path)

    loaded = load_model(PerceiverForImageClassificationFourier, tmp_path, dtype=torch.bfloat16)

    assert torch.equal(FOURIER.rows(loaded), FOURIER.rows(model).to(torch.bfloat16))
    assert torch.equal(FOURIER.rows(copy.deepcopy(loaded)), FOURIER.rows(loaded))


def test_sharded_checkpoints_are_loaded(tmp_path: Path) -> None:
    model = FOURIER.replace(FOURIER.new(), embedding_of(30))
    model.save_pretrained(tmp_path, max_shard_size="200KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1

    loaded = load_model(PerceiverForImageClassificationFourier, str(tmp_path))

    assert_same(FOURIER.logits(loaded), FOURIER.logits(model))


@pytest.mark.parametrize("consumer", [FOURIER, VIT, BERT], ids=["perceiver-fourier", "vit", "bert"])
def test_a_checkpoint_without_the_table_is_refused(consumer: Consumer, tmp_path: Path) -> None:
    consumer.replace(consumer.new(), embedding_of(consumer.n)).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors[consumer.key]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(MaedError, match=re.escape(consumer.key)):
        load_model(consumer.model_class, tmp_path)


@pytest.mark.parametrize("options", [{}, {"ignore_mismatched_sizes": True}], ids=["strict", "lenient"])
@pytest.mark.parametrize("consumer", [FOURIER, VIT], ids=["perceiver-fourier", "vit"])
def test_a_table_of_another_shape_is_refused(consumer: Consumer, options: dict[str, bool], tmp_path: Path) -> None:
    consumer.replace(consumer.new(), embedding_of(consumer.n)).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors[consumer.key] = torch.zeros(7, consumer.width)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(MaedError, match="shape"):
        load_model(consumer.model_class, tmp_path, **options)


@pytest.mark.parametrize(
    "change",
    [
        "gone",
        {"where": "__class__.__init__"},
        {"where": "os;system"},
        {"where": "perceiver.decoder"},
        {"where": 5},
        {"kind": "pickle"},
        {"kind": "parameter"},
        {"n": -1},
        {"n": "30"},
        {"n": True},
        {"n": 31},
        {"dim": 16},
        {"offset": -2},
        {"trainable": "no"},
        {"rms": float("nan")},
        {"rms": None},
        {"label": ["maed"]},
        {"fingerprint": None},
    ],
    ids=str,
)
def test_a_config_that_replace_positions_did_not_write_is_refused(change: Any, tmp_path: Path) -> None:
    FOURIER.replace(FOURIER.new(), embedding_of(30)).save_pretrained(tmp_path)
    config = read_json(tmp_path / "config.json")
    config["maed_positions"] = change if isinstance(change, str) else {**config["maed_positions"], **change}
    (tmp_path / "config.json").write_text(json.dumps(config))

    with pytest.raises(MaedError) as error:
        load_model(PerceiverForImageClassificationFourier, tmp_path)

    assert "\n" not in str(error.value)


def test_loading_info_is_not_to_be_had() -> None:
    with pytest.raises(MaedError, match="output_loading_info"):
        load_model(BertModel, "anything", output_loading_info=True)


def test_a_table_that_was_no_part_of_the_state_dict_is_saved_and_loaded(tmp_path: Path) -> None:
    config = VideoMAEConfig(
        image_size=8,
        patch_size=4,
        num_frames=4,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    model, frames = VideoMAEForVideoClassification(config).eval(), torch.randn(2, 4, 3, 8, 8)
    replace_positions(model, embedding_of(8)).save_pretrained(tmp_path / "once")

    for name in ("once", "twice"):
        loaded = load_model(VideoMAEForVideoClassification, tmp_path / name)
        loaded.save_pretrained(tmp_path / "twice")

        assert_same(loaded(frames).logits, model(frames).logits)
        assert loaded.config.maed_positions["kind"] == "buffer"


# Other models, by their path.


def test_rows_before_the_offset_stay() -> None:
    config = BartConfig(
        vocab_size=20,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        max_position_embeddings=10,
    )
    model, embedding = BartModel(config), embedding_of(10)
    before = model.encoder.embed_positions.weight.detach().clone()

    replace_positions(model, embedding, where="encoder.embed_positions", rms=0.1)

    after = model.encoder.embed_positions.weight
    assert torch.equal(after[:2], before[:2])  # BART's positions start at 2
    assert torch.equal(after[2:], embedding.table(dim=16, rms=0.1))


def test_two_tables_of_a_model(tmp_path: Path) -> None:
    parts = text(BertConfig, 10)
    model = EncoderDecoderModel(
        encoder=BertModel(parts),
        decoder=BertLMHeadModel(text(BertConfig, 10)),
    )
    decoder = model.decoder.bert.embeddings.position_embeddings.weight.detach().clone()

    replace_positions(model, embedding_of(10))  # the encoder's: decoders are left alone
    assert model.config.maed_positions["where"] == "encoder.embeddings.position_embeddings"
    assert torch.equal(model.decoder.bert.embeddings.position_embeddings.weight, decoder)
    replace_positions(model, embedding_of(10, seed=4), where="decoder.bert.embeddings.position_embeddings")
    model.save_pretrained(tmp_path)
    loaded = load_model(EncoderDecoderModel, tmp_path)

    assert [record["where"] for record in loaded.config.maed_positions] == [
        "encoder.embeddings.position_embeddings",
        "decoder.bert.embeddings.position_embeddings",
    ]
    assert not loaded.encoder.embeddings.position_embeddings.weight.requires_grad
    assert not loaded.decoder.bert.embeddings.position_embeddings.weight.requires_grad


def test_models_made_from_one_config_do_not_share_the_record(tmp_path: Path) -> None:
    config = vision(ViTConfig)
    replaced, other = ViTForImageClassification(config), ViTForImageClassification(config)

    replace_positions(replaced, embedding_of(4))
    other.save_pretrained(tmp_path)

    assert replaced.config is replaced.vit.config
    assert not hasattr(config, "maed_positions")
    assert all(p.requires_grad for p in load_model(ViTForImageClassification, tmp_path).parameters())


def test_the_parts_of_a_model_still_share_its_config() -> None:
    model = EncoderDecoderModel(encoder=BertModel(text(BertConfig, 10)), decoder=BertLMHeadModel(text(BertConfig, 10)))

    replace_positions(model, embedding_of(10))

    assert model.encoder.config is model.config.encoder
    assert model.decoder.config is model.config.decoder


def test_replacing_again_takes_the_last() -> None:
    for consumer, n in ((VIT, 4), (FOURIER, 20)):
        model, last = consumer.replace(consumer.new(), embedding_of(consumer.n), rms=0.3), embedding_of(n, seed=9)

        consumer.replace(model, last, trainable=True)

        assert torch.allclose(consumer.rows(model)[consumer.kept :], last.table(dim=consumer.width, rms=0.3))
        assert model.config.maed_positions["fingerprint"] == last.fingerprint
        assert model.config.maed_positions["trainable"] is True


class Plain(nn.Module):
    """A model of nobody's library."""

    def __init__(self, n: int, width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(1, n, width))


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(2, 20),
    d=st.integers(1, 8),
    width=st.integers(1, 12),
    rms=st.floats(1e-3, 1e3),
    seed=st.integers(0, 99),
)
def test_size_is_as_asked_and_distances_keep_their_proportions(
    n: int, d: int, width: int, rms: float, seed: int
) -> None:
    embedding = embedding_of(n, d, seed)

    table = replace_positions(Plain(n, width), embedding, where="table", rms=rms).table[0].double()

    assert table.square().mean().sqrt().item() == pytest.approx(rms, rel=1e-5)
    if width >= d:
        factor = rms * (width / d) ** 0.5
        expected = torch.cdist(embedding.vectors.double(), embedding.vectors.double())
        torch.testing.assert_close(torch.cdist(table, table) / factor, expected, rtol=1e-3, atol=1e-3)


# Errors.


@every
def test_another_number_of_positions_is_refused_with_the_remedies(consumer: Consumer) -> None:
    model = consumer.new()
    if consumer.key.endswith(".table"):  # Fourier features are of any number: the input decides
        model = consumer.replace(model, embedding_of(consumer.n + 1))
        with pytest.raises(MaedError) as error:
            consumer.logits(model)
        assert error.value.argument == "inputs"
        return
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    with pytest.raises(MaedError, match=r"resampled.*configured") as error:  # the remedies
        consumer.replace(model, embedding_of(consumer.n + 3))

    assert error.value.argument == "embedding"
    assert "\n" not in str(error.value)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())
    assert not hasattr(model.config, "maed_positions")


def two_tables() -> nn.Module:
    parts = [nn.ModuleDict({"position_embeddings": nn.Embedding(4, 2)}) for _ in range(2)]
    return nn.ModuleDict({"image": parts[0], "text": parts[1]})


def t5() -> T5Model:
    return T5Model(T5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2))


@pytest.mark.parametrize(
    ("model", "options", "argument"),
    [
        (t5, {}, "model"),
        (two_tables, {}, "model"),
        (VIT.new, {"where": "vit.nothing"}, "where"),
        (VIT.new, {"where": "vit.__class__"}, "where"),
        (VIT.new, {"where": "vit.layernorm"}, "where"),
        (VIT.new, {"where": "vit.embeddings.patch_embeddings.projection.weight"}, "where"),
        (VIT.new, {"rms": 0.0}, "rms"),
        (VIT.new, {"rms": float("nan")}, "rms"),
        (VIT.new, {"offset": -1}, "offset"),
        (VIT.new, {"offset": 1.0}, "offset"),
        (VIT.new, {"offset": 9}, "offset"),
        (VIT.new, {"offset": 0}, "embedding"),
        (FOURIER.new, {"offset": 1}, "offset"),
        (lambda: VIT.new().to("meta"), {"rms": 1.0}, "model"),
        (lambda: FOURIER.new().to("meta"), {"rms": 1.0}, "model"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    model: Callable[[], Any], options: dict[str, Any], argument: str
) -> None:
    with pytest.raises(MaedError) as error:
        replace_positions(model(), embedding_of(4), **options)

    assert error.value.argument == argument
    assert "\n" not in str(error.value)


def test_an_embedding_is_an_embedding() -> None:
    with pytest.raises(MaedError) as error:
        replace_positions(VIT.new(), torch.randn(4, 16))  # type: ignore[arg-type]
    assert error.value.argument == "embedding"


def test_a_table_that_is_not_finite_has_no_size() -> None:
    model = VIT.new()
    nn.init.constant_(model.vit.embeddings.position_embeddings, torch.nan)

    with pytest.raises(MaedError, match=r"not finite.*rms="):
        VIT.replace(model, embedding_of(4))


def test_rows_that_are_neither_patches_nor_tokens_need_an_offset() -> None:
    model = VIT.new()
    model.vit.embeddings.position_embeddings = nn.Parameter(torch.randn(1, 7, 16))

    with pytest.raises(MaedError) as error:
        VIT.replace(model, embedding_of(4))
    assert error.value.argument == "offset"

    VIT.replace(model, embedding_of(4), offset=3)


def test_the_table_knows_no_coordinates() -> None:
    encoding = FOURIER.replace(FOURIER.new(), embedding_of(30)).perceiver.input_preprocessor.position_embeddings

    with pytest.raises(MaedError) as error:
        encoding([6, 5], 2, device="cpu", dtype=torch.float32, pos=torch.zeros(2, 30, 2))
    assert error.value.argument == "pos"


# Plain PyTorch.


@settings(max_examples=40, deadline=None)
@given(n=st.integers(2, 20), d=st.integers(1, 8), width=st.integers(1, 12), scale=st.floats(1e-3, 1e3))
def test_what_is_added_has_the_size_asked_for_and_the_distances_of_the_embedding(
    n: int, d: int, width: int, scale: float
) -> None:
    embedding = PositionEmbedding(embedding_of(n, d).vectors * 5)

    added = AddPositions(embedding, width, scale=scale)(torch.zeros(2, n, width)).detach().double()

    assert torch.equal(added[0], added[1])
    assert added.square().mean().sqrt().item() == pytest.approx(scale, rel=1e-4)
    if width >= d:
        expected = torch.cdist(embedding.vectors.double(), embedding.vectors.double())
        factor = scale * (width / d) ** 0.5 / 5
        torch.testing.assert_close(torch.cdist(added[0], added[0]) / factor, expected, rtol=1e-3, atol=1e-2)


def test_shorter_inputs_have_the_first_positions_and_index_picks_any() -> None:
    add, x = AddPositions(embedding_of(10), 16), torch.randn(3, 10, 16)
    whole = add(x)

    torch.testing.assert_close(add(x[:, :4]), whole[:, :4])
    order = torch.tensor([7, 0, 3])
    torch.testing.assert_close(add(x[:, order], order), whole[:, order])
    visible = torch.stack([torch.randperm(10)[:5] for _ in range(3)])
    rows = torch.arange(3)[:, None]
    torch.testing.assert_close(add(x[rows, visible], visible), whole[rows, visible])


@pytest.mark.parametrize(
    ("x", "index", "argument"),
    [
        (torch.zeros(2, 11, 16), None, "x"),
        (torch.zeros(2, 5, 8), None, "x"),
        (torch.zeros(5, 16), None, "x"),
        (torch.zeros(2, 5, 16), torch.zeros(4).long(), "index"),
        (torch.zeros(2, 5, 16), torch.zeros(3, 5).long(), "index"),
        (torch.zeros(2, 5, 16), torch.zeros(5), "index"),
        (torch.zeros(2, 5, 16), torch.ones(5).bool(), "index"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(x: Tensor, index: Tensor | None, argument: str) -> None:
    with pytest.raises(MaedError) as error:
        AddPositions(embedding_of(10), 16)(x, index)
    assert error.value.argument == argument


@pytest.mark.parametrize("index", [10, -1])
def test_an_index_of_no_position_is_an_error(index: int) -> None:
    with pytest.raises(IndexError):
        AddPositions(embedding_of(10), 16)(torch.zeros(2, 1, 16), torch.tensor([index]))


@pytest.mark.parametrize(
    ("positions", "width", "scale", "argument"),
    [
        (torch.randn(4, 2), 8, 1.0, "positions"),
        (embedding_of(4), 0, 1.0, "width"),
        (embedding_of(4), 8.0, 1.0, "width"),
        (embedding_of(4), 8, -1.0, "scale"),
    ],
)
def test_arguments_that_cannot_be_are_refused(positions: Any, width: Any, scale: float, argument: str) -> None:
    with pytest.raises(MaedError) as error:
        AddPositions(positions, width, scale=scale)
    assert error.value.argument == argument


class Classifier(nn.Module, PyTorchModelHubMixin):
    """A user's model, that can be shared on the hub."""

    def __init__(self, n: int = 9, dim: int = 6, width: int = 16) -> None:
        super().__init__()
        self.embed = nn.Linear(2, width)
        self.add_positions = AddPositions(PositionEmbedding(torch.zeros(n, dim)), width)
        layer = nn.TransformerEncoderLayer(width, nhead=2, dim_feedforward=16, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, num_layers=1, enable_nested_tensor=False)
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.add_positions(self.embed(x))).mean(dim=1))


def classifier(trainable: bool = False) -> Classifier:
    model = Classifier()
    positions = PositionEmbedding(embedding_of(9).vectors, trainable=trainable)
    model.add_positions = AddPositions(positions, width=16, scale=0.5)
    return model


@pytest.mark.parametrize("trainable", [False, True])
def test_a_transformer_encoder_trains_the_vectors_only_if_asked(trainable: bool) -> None:
    model = classifier(trainable)
    x = torch.randn(8, 9, 2)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    assert not torch.allclose(model(x), model(x[:, order]), atol=1e-5)
    before = copy.deepcopy(model.state_dict())

    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    model(x).square().sum().backward()
    optimizer.step()

    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {"add_positions.linear.weight", "add_positions.gain"} <= changed
    assert ("add_positions.positions.vectors" in changed) is trainable


def test_a_users_model_is_saved_and_read_back(tmp_path: Path) -> None:
    model, x = classifier().eval(), torch.randn(2, 9, 2)
    expected = model(x)

    by_state = Classifier().eval()
    by_state.load_state_dict(copy.deepcopy(model.state_dict()))
    save_model(model, str(tmp_path / "model.safetensors"))
    by_tensors = Classifier().eval()
    load_tensors(by_tensors, str(tmp_path / "model.safetensors"))
    model.save_pretrained(tmp_path / "hub")
    by_hub = Classifier.from_pretrained(tmp_path / "hub").eval()

    for loaded in (by_state, by_tensors, by_hub):
        assert_same(loaded(x), expected)
        assert loaded.add_positions.positions.fingerprint == model.add_positions.positions.fingerprint


def test_precision_is_that_of_the_inputs() -> None:
    add = AddPositions(embedding_of(9), 16)
    assert add(torch.zeros(2, 9, 16, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert add.to(torch.bfloat16)(torch.zeros(2, 9, 16, dtype=torch.bfloat16)).dtype == torch.bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert AddPositions(embedding_of(9), 16)(torch.zeros(2, 9, 16)).dtype == torch.float32


# What the pages promise.


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_pages_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if page.stem == "x-transformers":
        pytest.importorskip("x_transformers")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    # as in tests/test_docs.py: <!-- not run: why --> before a block that needs what does not install everywhere
    blocks = re.findall(r"(?<! -->\n)```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert blocks
    scope: dict[str, object] = {}

    for block in blocks:
        exec(compile(block, page.name, "exec"), scope)


def test_there_is_a_page_for_each_kind_of_model() -> None:
    kinds = {"perceiver", "vit", "bert", "x-transformers", "time-series", "eeg", "transformer-encoder"}
    assert kinds <= {page.stem for page in PAGES}
