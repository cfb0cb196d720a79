"""The original's experiments on transformers' own Perceivers: each table arrives, and stays, as it was given."""

import io
import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from huggingface_hub.errors import LocalEntryNotFoundError
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import (
    BertConfig,
    BertModel,
    PerceiverConfig,
    PerceiverForImageClassificationLearned,
    PerceiverForMaskedLM,
    PerceiverForSequenceClassification,
    PerceiverModel,
)
from transformers.models.perceiver.modeling_perceiver import PerceiverTextPreprocessor

from maed import PositionEmbedding
from maed.cli import main
from maed.data.geometry import Geometry, grid, line
from maed.data.signals import SignalData, SignalKind, Signals
from maed.encodings import position_table
from maed.errors import MaedError
from maed.files import read_json
from maed.models import (
    TargetModel,
    build_classifier,
    checkpoints,
    describe_classifier,
    load_classifier,
    resized_grid,
    table_for,
)
from maed.models.architectures._transformers import TransformersClassifier
from maed.models.architectures.maed import Maed
from maed.models.architectures.text import Text
from maed.presets import preset_path
from maed.settings import PerceiverSettings

SIDE, FINE, LENGTH, DIM = 8, 12, 24, 16
"""Pixels a side as stored and as resized, bytes of a text, channels of an embedding."""

SMALL: dict[str, Any] = {"latents": 4, "latent_width": 16, "layers": 1, "heads": 2, "cross_heads": 1}
TEXT = PerceiverSettings(architecture="text", **SMALL)
IMAGE = PerceiverSettings(architecture="image", input_width=16, **SMALL)

EXPERIMENTS = [
    *(("original-imdb-small", "trainable"), ("original-imdb-small", "maed")),
    *(("original-cifar10-small", "trainable"), ("original-cifar10-small", "maed-resampled")),
    *(("original-cifar10-scratch-small", "trainable"), ("original-cifar10-scratch-small", "maed-resampled")),
]


def signals(values: np.ndarray, geometry: Geometry, classes: int = 3, **facts: Any) -> SignalData:
    split = Signals(values, np.arange(len(values)) % classes)
    if values.ndim == 3:
        split = replace(split, mean=np.zeros((1, 3), np.float32), scale=np.ones((1, 3), np.float32))
    kind: SignalKind = "real" if values.ndim == 3 else "tokens"
    names = tuple("abcdefgh"[:classes])
    return SignalData("test", kind, split, split, split, classes=names, geometry=geometry, **facts)


def texts(classes: int = 2, vocabulary: int = 262) -> SignalData:
    ids = np.random.default_rng(0).integers(6, vocabulary, (12, LENGTH))
    return signals(ids, line(LENGTH), classes, vocabulary=vocabulary)


def images(side: int = SIDE, **facts: Any) -> SignalData:
    return signals(np.random.default_rng(0).normal(size=(6, side**2, 3)).astype(np.float32), grid(side, side), **facts)


def data_for(settings: PerceiverSettings) -> SignalData:
    return texts() if settings.architecture == "text" else images()


def build(
    settings: PerceiverSettings, encoding: str, data: SignalData | None = None, *, seed: int = 0, calibrate: bool = True
) -> tuple[TransformersClassifier, torch.Tensor]:
    """A classifier of transformers of an encoding, and the table that it was given."""
    model, table = build_any(settings, encoding, data, seed=seed, calibrate=calibrate)
    assert isinstance(model, TransformersClassifier)
    return model, table


def build_any(
    settings: PerceiverSettings, encoding: str, data: SignalData | None = None, *, seed: int = 0, calibrate: bool = True
) -> tuple[TargetModel, torch.Tensor]:
    """A classifier of any architecture and of an encoding, and the table that it was given."""
    data = data or data_for(settings)
    config = describe_classifier(data, encoding, DIM, settings)
    n = len((resized_grid(data, settings) or data.geometry).coordinates)
    vectors = position_table("random", n, DIM, seed=99) if "maed" in encoding else None
    table = table_for(config, data, seed=seed, vectors=vectors)
    model = build_classifier(config, table, seed=seed)
    if calibrate:
        model.calibrate(batch(data))
    return model, table


def batch(data: SignalData) -> torch.Tensor:
    return data.train.take(np.arange(len(data.train)))


def step(model: TargetModel, data: SignalData) -> None:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    labels = torch.from_numpy(data.train.labels)
    cross_entropy(model.train()(batch(data)), labels).backward()
    optimizer.step()


def preset(name: str) -> dict[str, Any]:
    return yaml.safe_load(preset_path(name).read_text())


def rms(values: torch.Tensor) -> float:
    return float(values.detach().double().square().mean().sqrt())


# --- the table ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "encoding"), EXPERIMENTS)
def test_each_table_is_the_given_one_from_construction_to_reloading(name: str, encoding: str, tmp_path: Path) -> None:
    settings = PerceiverSettings(**preset(name)["perceiver"])
    settings = replace(settings, image_size=settings.image_size and FINE)
    data = data_for(settings)
    model, table = build(settings, encoding, data)
    given = PositionEmbedding(table).table(rms=model.rms)
    assert torch.equal(model.position_table, given)
    step(model, data)
    assert torch.equal(model.position_table, given) == (encoding != "trainable")
    model.save_pretrained(tmp_path)
    loaded = load_classifier(tmp_path)
    assert torch.equal(loaded.position_table, model.position_table)
    assert torch.equal(loaded(batch(data)), model.eval()(batch(data)))
    frozen = [name for name, parameter in loaded.named_parameters() if not parameter.requires_grad]
    assert len(frozen) == (encoding != "trainable")


def test_vectors_of_the_tables_width_arrive_bit_for_bit_but_for_their_size() -> None:
    vectors = position_table("random", LENGTH, DIM, seed=99)
    model, _ = build(TEXT, "maed")
    assert torch.equal(model.position_table, PositionEmbedding(vectors).table(rms=model.rms))


def test_narrower_vectors_keep_the_proportions_of_all_their_distances() -> None:
    vectors = position_table("random", FINE**2, DIM, seed=99)
    model, _ = build(replace(IMAGE, image_size=FINE, input_width=40), "maed-resampled")
    wanted, found = torch.pdist(vectors), torch.pdist(model.position_table)
    assert torch.allclose(found / rms(found), wanted / rms(wanted), rtol=1e-4)


def test_what_is_put_in_before_post_init_is_lost_and_what_comes_after_it_stays() -> None:
    config = PerceiverConfig(num_latents=4, d_latents=16, d_model=DIM, num_self_attends_per_block=1)
    table = position_table("random", 2048, DIM, seed=0)
    preprocessor = PerceiverTextPreprocessor(config)
    preprocessor.position_embeddings = nn.Embedding.from_pretrained(table.clone(), freeze=True)
    PerceiverModel(config, input_preprocessor=preprocessor)
    assert not torch.allclose(preprocessor.position_embeddings.weight, table, atol=0.1)  # the original's trap
    for settings in (TEXT, IMAGE):
        model, _ = build(settings, "maed")
        before = model.position_table.clone()
        model.model.post_init()
        model.model.init_weights()
        assert torch.equal(model.position_table, before)


@pytest.mark.parametrize("encoding", ["maed", "trainable", "sinusoidal", "fourier", "random"])
@pytest.mark.parametrize("settings", [TEXT, IMAGE], ids=["text", "image"])
def test_positions_start_as_loud_as_the_content_that_they_join(settings: PerceiverSettings, encoding: str) -> None:
    model, _ = build(settings, encoding)
    seen = batch(data_for(settings))[:8]  # what calibration looks at
    preprocessor = model.perceiver.input_preprocessor
    preprocessor.keeps_apart = False
    joined, _, content = preprocessor(model.inputs(seen, None)[0])
    positions = joined - content if settings.architecture == "text" else joined[:, :, content.shape[2] :]
    assert rms(positions) == pytest.approx(rms(content), rel=1e-5)


def test_positions_are_about_as_loud_before_a_batch_was_seen() -> None:
    for settings in (TEXT, IMAGE):
        assert build(settings, "maed", calibrate=False)[0].rms == pytest.approx(build(settings, "maed")[0].rms, rel=0.3)


def test_no_positions_are_zeros() -> None:
    model, _ = build(IMAGE, "none")
    assert not model.position_table.any()


def test_fine_tuning_trains_what_is_learned() -> None:
    model, _ = build(replace(TEXT, fine_tune=True), "maed")
    before = model.position_table.clone()
    step(model, texts())
    assert not torch.equal(model.position_table, before)


@pytest.mark.parametrize("settings", [TEXT, replace(IMAGE, image_size=FINE)], ids=["text", "image"])
def test_encodings_differ_in_their_table_alone(settings: PerceiverSettings) -> None:
    names = ("none", "trainable", "random", "sinusoidal", "fourier", "maed-resampled")
    states = {name: build(settings, name)[0].state_dict() for name in names}
    tables = {key for key in states["none"] if key.split("input_preprocessor.")[-1].startswith("position_embeddings")}
    assert len(tables) == 1
    for name in names[1:]:
        differing = {key for key in states["none"] if not torch.equal(states[name][key], states["none"][key])}
        assert differing == tables
    other = build(settings, "none", seed=1)[0].state_dict()
    assert not all(torch.equal(other[key], states["none"][key]) for key in other if key not in tables)


# --- transformers' own model --------------------------------------------------------------------------------------


def test_text_logits_are_those_of_transformers() -> None:
    model, _ = build(TEXT, "maed")
    theirs = PerceiverForSequenceClassification(model.model.config)
    theirs.load_state_dict(model.model.state_dict())
    ids, mask = batch(texts()), torch.ones(12, LENGTH, dtype=torch.bool)
    mask[:, 15:] = False
    for real in (None, mask):
        wanted = theirs.eval()(inputs=ids.masked_fill(~mask, 0) if real is not None else ids, attention_mask=real)
        assert torch.allclose(model.eval()(ids, real), wanted.logits, rtol=1e-4, atol=1e-5)


def test_image_logits_are_those_of_transformers_at_its_own_widths() -> None:
    model, _ = build(replace(IMAGE, input_width=None), "maed")
    theirs = PerceiverForImageClassificationLearned(model.model.config)
    theirs.load_state_dict(model.model.state_dict())
    pixels = batch(images())
    wanted = theirs.eval()(inputs=pixels.transpose(1, 2).unflatten(2, (SIDE, SIDE))).logits
    assert torch.allclose(model.eval()(pixels), wanted, rtol=1e-4, atol=1e-5)
    assert isinstance(model.model, PerceiverForImageClassificationLearned)


def test_the_presets_are_the_seeds_models() -> None:
    imdb = PerceiverSettings(**preset("original-imdb")["perceiver"])
    data = signals(np.zeros((4, 2048), np.int64), line(2048), 2, vocabulary=262)
    config = describe_classifier(data, "trainable", 64, imdb)
    with torch.device("meta"):
        ours = checkpoints.built_config(
            {"d_model": 64}, ""
        )  # what PerceiverConfig says where the original says nothing
        theirs = PerceiverForSequenceClassification(PerceiverConfig(num_self_attends_per_block=4, d_model=64))
    table = position_table("trainable", 2048, config.dim, seed=0)
    classifier = build_classifier(config, table, seed=0)
    assert isinstance(classifier, Text)
    model = classifier.model
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in theirs.state_dict().items()}
    assert sum(p.numel() for p in model.parameters()) == 53_156_034
    assert model.config.initializer_range == ours.initializer_range
    for name in ("original-cifar10", "original-cifar10-scratch"):
        assert PerceiverSettings(**preset(name)["perceiver"]).image_size ** 2 == 50_176


@pytest.mark.slow
@pytest.mark.parametrize("settings", [TEXT, IMAGE], ids=["text", "image"])
def test_what_only_positions_tell_is_learned(settings: PerceiverSettings) -> None:
    """Two symbols, everywhere; the class is which of them stands at position 5."""
    generator = np.random.default_rng(1)
    symbols = generator.integers(0, 2, (256, 16))
    values = symbols + 6 if settings.architecture == "text" else (2.0 * symbols - 1)[:, :, None].repeat(3, axis=2)
    data = signals(values.astype(np.int64 if settings.architecture == "text" else np.float32), grid(4, 4), 2)
    data = replace(data, vocabulary=10) if settings.architecture == "text" else data
    labels = torch.from_numpy(symbols[:, 5])
    settings = replace(settings, latent_width=32)
    config = describe_classifier(data, "random", 16, settings)
    model = build_classifier(config, table_for(config, data, seed=0, vectors=None), seed=0)
    assert isinstance(model, TransformersClassifier)
    inputs = batch(data)
    model.calibrate(inputs)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        cross_entropy(model(inputs), labels).backward()
        optimizer.step()
    assert (model.eval()(inputs).argmax(1) == labels).float().mean() > 0.95
    model._put(torch.zeros_like(model.position_table))
    assert (model(inputs).argmax(1) == labels).float().mean() < 0.8


# --- images -------------------------------------------------------------------------------------------------------


def by_hand(pixels: torch.Tensor, size: int) -> torch.Tensor:
    """`(B, N, C)` square images resized by Pillow, channel by channel."""
    side = round(pixels.shape[1] ** 0.5)
    resized = [
        [Image.fromarray(channel).resize((size, size), Image.Resampling.BICUBIC) for channel in image]
        for image in pixels.transpose(1, 2).unflatten(2, (side, side)).numpy()
    ]
    stacked = np.stack([np.stack([np.asarray(channel) for channel in image], axis=2) for image in resized])
    return torch.from_numpy(stacked).flatten(1, 2)


@pytest.mark.parametrize("size", [FINE, 5])
def test_images_resized_inside_the_model_are_as_resized_by_hand(size: int) -> None:
    model, table = build(replace(IMAGE, image_size=size), "maed-resampled")
    resized = by_hand(batch(images()), size)
    whole = replace(model.config, positions=size**2, sides=(size, size), perceiver=IMAGE)
    there = build_classifier(whole, table, seed=0)
    there.calibrate(resized)
    assert torch.allclose(there.position_table, model.position_table, rtol=1e-3)
    assert torch.allclose(there.eval()(resized), model.eval()(batch(images())), atol=1e-4)


def test_a_pixel_that_is_not_real_is_never_read_where_images_are_resized() -> None:
    model, _ = build(replace(IMAGE, image_size=2 * SIDE), "random")
    pixels, mask = batch(images()), torch.ones(6, SIDE**2, dtype=torch.bool)
    mask[:, : 3 * SIDE] = False
    blank = pixels.masked_fill(~mask[:, :, None], torch.nan)
    zero = pixels.masked_fill(~mask[:, :, None], 0.0)
    _, fine = model.inputs(blank, mask)
    assert fine is not None
    assert fine.unflatten(1, (2 * SIDE, 2 * SIDE))[:, :, 0].sum(1).tolist() == [2 * (SIDE - 3)] * 6
    assert torch.equal(model.eval()(blank, mask), model(zero, mask))


def test_a_permutation_of_pixels_and_table_changes_nothing() -> None:
    model, table = build(IMAGE, "maed")
    order = torch.randperm(SIDE**2, generator=torch.Generator().manual_seed(0))
    permuted = build_classifier(replace(model.config, sides=()), table[order], seed=0)
    permuted.calibrate(batch(images())[:, order])
    wanted = model.eval()(batch(images()))
    assert torch.allclose(permuted.eval()(batch(images())[:, order]), wanted, atol=1e-5)


def test_permuted_images_are_described_and_run_unless_they_are_to_be_resized() -> None:
    data = images(permutation=np.random.default_rng(0).permutation(SIDE**2))
    model, _ = build(IMAGE, "maed", data)
    assert model(batch(data)).shape == (6, 3)
    with pytest.raises(MaedError, match="permuted") as refused:
        describe_classifier(data, "random", DIM, replace(IMAGE, image_size=FINE))
    assert refused.value.argument == "perceiver.image_size"


# --- checkpoints --------------------------------------------------------------------------------------------------


def theirs(classes: int = 2, **facts: Any) -> PerceiverConfig:
    sizes = {"num_latents": 5, "d_latents": 30, "num_self_attends_per_block": 2, "num_self_attention_heads": 3}
    beyond = {"d_model": 24, "num_cross_attention_heads": 2, "qk_channels": 12, "v_channels": 30}
    return PerceiverConfig(**{**sizes, **beyond, "max_position_embeddings": 40, "num_labels": classes, **facts})


@pytest.fixture(scope="module")
def text_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    torch.manual_seed(3)
    PerceiverForSequenceClassification(theirs()).save_pretrained(folder)
    return folder


def same(model: TransformersClassifier, weights: dict[str, torch.Tensor]) -> set[str]:
    """Tensors of the model that are not those of the checkpoint."""
    state = model.model.state_dict()
    there = {key: weights.get(key) for key in state}
    return {
        key for key, t in there.items() if t is None or t.shape != state[key].shape or not torch.equal(t, state[key])
    }


TABLE = "perceiver.input_preprocessor.position_embeddings.weight"


def test_a_text_classifier_starts_from_a_checkpoint_of_other_length(text_checkpoint: Path, tmp_path: Path) -> None:
    settings = replace(TEXT, checkpoint=str(text_checkpoint), dropout=0.1)
    weights = load_file(text_checkpoint / "model.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, table = build(settings, "maed")
    assert same(model, weights) == {TABLE}
    assert (model.config.dim, model.config.perceiver.latents, model.config.perceiver.heads) == (24, 5, 3)
    assert model.rms == pytest.approx(rms(weights[TABLE]))  # as loud as what it replaces
    assert torch.equal(model.position_table, PositionEmbedding(table).table(rms=model.rms))
    model.save_pretrained(tmp_path)
    loaded = load_classifier(tmp_path)  # needs the checkpoint no more
    assert torch.equal(loaded(batch(texts())), model.eval()(batch(texts())))


def test_a_checkpoint_with_its_own_table_has_the_logits_of_transformers(text_checkpoint: Path) -> None:
    reference = PerceiverForSequenceClassification.from_pretrained(text_checkpoint).eval()
    data = signals(np.random.default_rng(0).integers(6, 262, (4, 40)), line(40), 2, vocabulary=262)
    settings = replace(TEXT, checkpoint=str(text_checkpoint))
    config = describe_classifier(data, "random", DIM, settings)
    table = reference.get_parameter(TABLE).detach()
    model = build_classifier(config, table, seed=0).eval()
    wanted = reference(inputs=batch(data)).logits
    assert torch.allclose(model(batch(data)), wanted, rtol=1e-4, atol=1e-5)


def test_a_checkpoint_of_other_classes_starts_its_last_layer_anew_and_says_so(text_checkpoint: Path) -> None:
    settings = replace(TEXT, checkpoint=str(text_checkpoint))
    with pytest.warns(UserWarning, match="the data have 3: its last layer"):
        model, _ = build(settings, "maed", texts(classes=3))
    head = "perceiver.decoder.decoder.final_layer"
    assert same(model, load_file(text_checkpoint / "model.safetensors")) == {TABLE, f"{head}.weight", f"{head}.bias"}
    assert model(batch(texts())).shape == (12, 3)


def test_a_language_model_gives_all_but_its_decoder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    PerceiverForMaskedLM(theirs()).save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="the data have 2: its decoder"):
        model, _ = build(replace(TEXT, checkpoint=str(tmp_path)), "maed")
    different = same(model, load_file(tmp_path / "model.safetensors"))
    assert TABLE in different
    assert all(key.startswith("perceiver.decoder.") for key in different - {TABLE})


@pytest.mark.parametrize("stored", ["model.safetensors", "pytorch_model.bin"])
def test_an_image_classifier_starts_from_a_checkpoint_at_another_size(stored: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    reference = PerceiverForImageClassificationLearned(theirs(classes=3, image_size=6))
    reference.save_pretrained(tmp_path)
    if stored != "model.safetensors":
        (tmp_path / "model.safetensors").unlink()
        torch.save(reference.state_dict(), tmp_path / stored)
    settings = PerceiverSettings(architecture="image", checkpoint=str(tmp_path), image_size=FINE)
    model, table = build(settings, "maed-resampled")
    assert len(same(model, reference.state_dict())) == 1
    assert torch.equal(model.position_table, PositionEmbedding(table).table(rms=model.rms))


def test_tensors_of_other_shapes_are_named_with_both_shapes(text_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(MaedError, match=r"input_preprocessor\.embeddings\.weight"):
        build(replace(TEXT, checkpoint=str(text_checkpoint)), "maed", texts(vocabulary=300))
    weights = load_file(text_checkpoint / "model.safetensors")
    (tmp_path / "config.json").write_text((text_checkpoint / "config.json").read_text())
    save_file({**weights, "perceiver.embeddings.latents": torch.zeros(5, 23)}, tmp_path / "model.safetensors")
    with pytest.raises(MaedError, match=r"perceiver\.embeddings\.latents"):
        build(replace(TEXT, checkpoint=str(tmp_path)), "maed")
    del weights["perceiver.embeddings.latents"]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(MaedError, match=r"lacks perceiver.embeddings.latents.*\(5, 30\)"):
        build(replace(TEXT, checkpoint=str(tmp_path)), "maed")


@pytest.mark.parametrize("settings", [TEXT, IMAGE, PerceiverSettings(**SMALL)], ids=["text", "image", "maed"])
def test_a_trained_folder_whose_shapes_do_not_fit_is_named(settings: PerceiverSettings, tmp_path: Path) -> None:
    model, _ = build_any(settings, "maed")
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    name = next(key for key in weights if key.endswith("embeddings.latents"))
    save_file({**weights, name: torch.zeros(9, 16)}, tmp_path / "model.safetensors")
    wanted = rf"model.safetensors: .*\({name} has the shape \(9, 16\) there and \(4, 16\) in the model\)"
    with pytest.raises(MaedError, match=wanted):
        load_classifier(tmp_path)
    save_file({**weights, "more": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(MaedError, match="more is no tensor of the model"):
        load_classifier(tmp_path)
    del weights[name]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(MaedError, match=rf"{name}, of shape \(4, 16\), is not among them"):
        load_classifier(tmp_path)


def test_a_folder_tells_which_classifier_it_holds(tmp_path: Path) -> None:
    kinds = {"maed": Maed, "text": Text}
    for architecture, kind in kinds.items():
        build_any(PerceiverSettings(architecture=architecture, **SMALL), "random", texts())[0].save_pretrained(tmp_path)
        assert type(load_classifier(tmp_path)) is kind


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"transformers": {"hidden_act": "nothing"}}, "not the config.json of a Perceiver"),
        ({"transformers": {"auto_map": "x"}}, "maed writes"),
        ({"transformers": {"qk_channels": [1]}}, "maed writes"),
        ({"transformers": 3}, "not the config.json of a Perceiver"),
        ({"sides": "x"}, "not the config.json of a Perceiver"),
        ({"sides": [8, float("inf")]}, "not the config.json of a Perceiver"),
        ({"perceiver": {**SMALL, "architecture": "text", "layers": 10**11}}, "100000000000 layers are more than"),
    ],
)
def test_a_config_that_is_none_is_refused_in_one_line(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    build(TEXT, "random")[0].save_pretrained(tmp_path)
    config = read_json(tmp_path / "config.json")
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(MaedError, match=words) as refused:
        load_classifier(tmp_path)
    assert "\n" not in str(refused.value)


def test_checkpoints_that_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(checkpoint: str | Path, words: str) -> None:
        with pytest.raises(MaedError, match=words) as error:
            build(replace(TEXT, checkpoint=str(checkpoint)), "random")
        assert "\n" not in str(error.value)

    def offline(name: str, file: str) -> str:
        raise LocalEntryNotFoundError("no connection\nat all")

    monkeypatch.setattr(checkpoints, "hf_hub_download", offline)
    refused("deepmind/x", r"'deepmind/x' is no folder, and its config\.json")
    refused("nowhere", "'nowhere' is no folder")
    refused(tmp_path, "holds no config.json")
    BertModel(BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2)).save_pretrained(tmp_path)
    refused(tmp_path, "'bert'")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "perceiver", "d_latents": "wide"}))
    refused(tmp_path, "not the config.json of a Perceiver")
    theirs().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"short")
    refused(tmp_path, "model.safetensors cannot be read")
    (tmp_path / "model.safetensors").unlink()
    refused(tmp_path, "holds no model.safetensors or pytorch_model.bin")


@pytest.mark.parametrize(
    ("data", "settings", "argument"),
    [
        (images(), TEXT, "perceiver.architecture"),
        (texts(), IMAGE, "perceiver.architecture"),
        (images(), PerceiverSettings(checkpoint="x"), "perceiver.checkpoint"),
        (texts(), replace(TEXT, image_size=4), "perceiver.image_size"),
        (texts(), replace(TEXT, combine="concatenate"), "perceiver.combine"),
        (replace(images(4), geometry=grid(2, 8)), replace(IMAGE, image_size=4), "perceiver.image_size"),
        (replace(images(4), geometry=line(16)), replace(IMAGE, image_size=4), "perceiver.image_size"),
    ],
)
def test_what_does_not_go_together_is_refused(data: SignalData, settings: PerceiverSettings, argument: str) -> None:
    with pytest.raises(MaedError) as refused:
        describe_classifier(data, "random", DIM, settings)
    assert refused.value.argument == argument


def test_an_architecture_that_is_none_is_refused() -> None:
    with pytest.raises(MaedError, match="did you mean 'image'") as refused:
        PerceiverSettings(architecture="imag")
    assert refused.value.argument == "perceiver.architecture"


def test_cross_heads_must_divide_the_channels() -> None:
    with pytest.raises(MaedError) as refused:
        build(replace(TEXT, cross_heads=3), "random")
    assert refused.value.argument == "perceiver.cross_heads"


def test_the_width_of_a_text_checkpoint_is_its_own(text_checkpoint: Path) -> None:
    with pytest.raises(MaedError, match="must be 24") as refused:
        describe_classifier(texts(), "random", DIM, replace(TEXT, checkpoint=str(text_checkpoint), input_width=16))
    assert refused.value.argument == "perceiver.input_width"


# --- the presets --------------------------------------------------------------------------------------------------

QUICK = (
    *("--trainer.progress=none", "--trainer.precision=32-true", "--autoencoder.steps=4", "--autoencoder.width=8"),
    *("--autoencoder.validate_every=2", "--autoencoder.batch_size=8", "--similarity.draws=256", "--embedding.dim=8"),
    *("--perceiver.latents=4", "--perceiver.latent_width=16", "--perceiver.layers=1", "--train.steps=2"),
    *("--train.epochs=1", "--train.validate_every=2", "--data.limit=120"),
    *("--similarity.method=maed", "--evaluation.probe_steps=0"),
    *("--report.reductions=[]", "--report.positions=2", "--report.channels=2", "--report.signals=2"),
)
CHANGES = {
    "original-imdb-small": ("--data.length=128", "--similarity.signals=40", "--embedding.dim=16"),
    "original-cifar10-small": ("--data.image_size=16", "--perceiver.image_size=8"),
    "original-cifar10-scratch-small": ("--data.image_size=16", "--perceiver.image_size=8"),
}


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`cifar10` and `imdb` in the hub's layout, with a few made-up images and reviews."""
    root, generator = tmp_path_factory.mktemp("data"), np.random.default_rng(0)

    def png() -> dict[str, Any]:
        content = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(content, "PNG")
        return {"bytes": content.getvalue(), "path": None}

    for part, count in (("train", 160), ("test", 40)):
        labels = np.arange(count)
        reviews = ["".join(generator.choice(list("abc def"), size=80)) for _ in labels]
        tables = {
            "cifar10": pa.table({"img": [png() for _ in labels], "label": labels % 10}),
            "imdb": pa.table({"text": reviews, "label": labels % 2}),
        }
        for name, table in tables.items():
            (root / name).mkdir(exist_ok=True)
            pq.write_table(table, root / name / f"{part}-00000-of-00001.parquet")
    return root


def run(name: str, root: Path, out: Path, *more: str, verb: str = "run") -> dict[str, Any]:
    """A small preset with smaller overrides, on data below `root`; the results."""
    source = "imdb" if "imdb" in name else "cifar10"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAED_DATA", str(root))
        assert main([verb, source, "--config", name, "--out", str(out), *QUICK, *CHANGES[name], *more]) == 0
    return read_json(out / "results.json")


@pytest.fixture(scope="module")
def finished(made_up: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A small preset's run from made-up data to its report, made when it is first asked for. Read only."""

    @cache
    def folder(name: str) -> Path:
        out = tmp_path_factory.mktemp(name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run(name, made_up, out)
        return out

    return folder


@pytest.mark.slow
@pytest.mark.xdist_group("original_presets")
@pytest.mark.parametrize("name", list(CHANGES))
def test_small_presets_run_from_data_to_results(name: str, finished: Callable[[str], Path]) -> None:
    folder, encodings = finished(name), preset(name)["positions"].split(",")
    results = read_json(folder / "results.json")
    assert [row["positions"] for row in results["scores"]] == encodings
    embedding = PositionEmbedding.from_pretrained(folder / "embedding")
    if "cifar10" in name:
        embedding = embedding.resampled("grid:8x8")
    learned = load_classifier(folder / "models" / f"{encodings[1]}-0")
    assert learned.config.encoding == encodings[1]
    size = rms(learned.position_table)
    assert torch.allclose(learned.position_table, embedding.table(learned.config.dim, size), atol=1e-5 * size)
    trained = load_classifier(folder / "models" / "trainable-0")
    assert trained.position_table.shape == learned.position_table.shape
    assert sum(p.numel() for p in trained.parameters()) == sum(p.numel() for p in learned.parameters())


@pytest.mark.slow
@pytest.mark.xdist_group("original_presets")
@pytest.mark.filterwarnings("ignore")
def test_compare_takes_an_embedding_that_was_resampled_before_as_well(
    made_up: Path, finished: Callable[[str], Path], tmp_path: Path
) -> None:
    name = "original-cifar10-small"
    exported = ["export", str(finished(name) / "embedding"), "--format", "folder", "--resample", "grid:8x8"]
    assert main([*exported, "--out", str(tmp_path / "fine" / "embedding")]) == 0
    again = ("--run", str(tmp_path / "fine"), "--positions", "maed-resampled")
    run(name, made_up, tmp_path / "again", *again, verb="compare")
    found, wanted = (
        load_classifier(folder / "models" / "maed-resampled-0") for folder in (tmp_path / "again", finished(name))
    )
    assert torch.equal(found.position_table, wanted.position_table)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_original_takes_a_table_of_as_many_positions_natively(
    made_up: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As at 224 x 224: too many positions for all pairs, so its U-Net is trained on landmarks."""
    monkeypatch.setattr("maed.autoencoder.placing.LANDMARKS", 64)
    many = ("--similarity.dense_positions=100", "--similarity.estimator=contrast", "--embedding.reduction=heat")
    native = ("--data.image_size=16", "--perceiver.image_size=16", "--positions=trainable,maed")

    results = run("original-cifar10-small", made_up, tmp_path / "out", *many, *native)

    assert results["positions"] == 256
    assert {row["positions"] for row in results["scores"]} == {"trainable", "maed"}
    learned = PositionEmbedding.from_pretrained(tmp_path / "out" / "embedding").vectors
    table = load_classifier(tmp_path / "out" / "models" / "maed-0").position_table
    assert len(table) == len(learned) == 256
    distances = torch.stack([torch.cdist(vectors, vectors).flatten() for vectors in (table, learned)])
    assert torch.corrcoef(distances)[0, 1] > 0.999  # in as many channels as the model has


@pytest.mark.parametrize("encoding", ["maed", "correlation"])
def test_embeddings_of_coarser_images_are_refused_by_name(
    encoding: str, made_up: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MAED_DATA", str(made_up))
    name = "original-cifar10-small"
    arguments = ["cifar10", "--config", name, "--out", str(tmp_path), *QUICK, *CHANGES[name]]
    assert main(["train", *arguments, "--positions", encoding]) == 2
    refused = f"positions: {encoding} has 256 positions"
    assert refused in capsys.readouterr().err


def test_an_embedding_of_zeros_is_refused_before_anything_is_trained(
    made_up: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MAED_DATA", str(made_up))
    empty = PositionEmbedding(torch.zeros(128, 16), source="imdb", provenance={"reduction": "tsne"})
    empty.save_pretrained(tmp_path / "embedding")
    arguments = [
        "imdb",
        "--config",
        "original-imdb-small",
        "--out",
        str(tmp_path),
        *QUICK,
        *CHANGES["original-imdb-small"],
    ]
    assert main(["compare", *arguments]) == 2
    assert "tsne found" in capsys.readouterr().err
    assert not (tmp_path / "models").exists()


@pytest.mark.slow
@pytest.mark.xdist_group("original_presets")
@pytest.mark.filterwarnings("ignore")
def test_the_presets_own_size_needs_no_resampling(
    made_up: Path, finished: Callable[[str], Path], tmp_path: Path
) -> None:
    name = "original-cifar10-scratch-small"
    more = ("--run", str(finished(name)), "--perceiver.image_size=16", "--positions=maed,correlation")
    results = run(name, made_up, tmp_path, *more, verb="compare")
    assert [row["positions"] for row in results["scores"]] == ["maed", "correlation"]
    assert load_classifier(tmp_path / "models" / "maed-0").position_table.shape == (256, 64)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_checkpoint_is_named_on_the_command_line(text_checkpoint: Path, made_up: Path, tmp_path: Path) -> None:
    given = (f"--perceiver.checkpoint={text_checkpoint}", "--positions=trainable", "--seeds=1")
    run("original-imdb-small", made_up, tmp_path, *given, verb="compare")
    model = load_classifier(tmp_path / "models" / "trainable-0")
    assert (model.config.dim, model.config.perceiver.latents) == (24, 5)
