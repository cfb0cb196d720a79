"""Position tables of models of other libraries and of plain PyTorch: found by layout, filled by name, or refused."""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from maed.embedding import PositionEmbedding
from maed.errors import MaedError
from maed.integrations import AddPositions, replace_positions

N, WIDTH = 6, 8


def embedding_of(n: int = N, names: list[str] | None = None) -> PositionEmbedding:
    vectors = torch.randn(n, 4, generator=torch.Generator().manual_seed(3))
    return PositionEmbedding(vectors - vectors.mean(dim=0), names=names)


class Encoder(nn.Module):
    """One layer over `(B, N, 3)`; what is added to its tokens, and where, is what models differ in."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Linear(3, WIDTH)
        self.layer = nn.TransformerEncoderLayer(WIDTH, nhead=2, dim_feedforward=16, dropout=0.0, batch_first=True)
        self.head = nn.Linear(WIDTH, 2)

    def add(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.add(self.embed(x)))).mean(dim=1)


def with_tokens(x: Tensor, *tokens: Tensor | None) -> Tensor:
    """Tokens of any of the shapes in use, before the others."""
    return torch.cat([*(t.reshape(1, -1, WIDTH).expand(len(x), -1, -1) for t in tokens if t is not None), x], dim=1)


class LucidViT(Encoder):
    """As in vit-pytorch: `ViT`, `deepvit` (3 axes), `pool="mean"` (no token) and `vit_5` (registers with rows)."""

    def __init__(self, classes: int = 1, registers: int = 0, axes: int = 2) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.randn(classes, WIDTH))
        if registers:
            self.register_tokens = nn.Parameter(torch.randn(registers, WIDTH))
        rows = torch.randn(N + classes + registers, WIDTH)
        self.pos_embedding = nn.Parameter(rows if axes == 2 else rows[None])

    def add(self, x: Tensor) -> Tensor:
        return with_tokens(x, self.cls_token, getattr(self, "register_tokens", None)) + self.pos_embedding


class SimpleViT(Encoder):
    """As vit-pytorch's: the table is a plain tensor, which its state dict does not hold."""

    def __init__(self) -> None:
        super().__init__()
        self.pos_embedding = torch.randn(N, WIDTH)

    def add(self, x: Tensor) -> Tensor:
        return x + self.pos_embedding.to(x.device)


class TimmViT(Encoder):
    """As timm's: `pos_embed`, with rows for the tokens or, by `no_embed_class`, without."""

    def __init__(self, registers: int = 0, no_embed_class: bool = False) -> None:
        super().__init__()
        self.patch_embed = nn.Identity()
        vars(self.patch_embed)["num_patches"] = N
        self.num_prefix_tokens, self.no_embed_class = 1 + registers, no_embed_class
        self.cls_token = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.reg_token = nn.Parameter(torch.randn(1, registers, WIDTH)) if registers else None
        self.pos_embed = nn.Parameter(torch.randn(1, N + (0 if no_embed_class else 1 + registers), WIDTH))
        self.rope: Any = nn.Module()  # a table of sines for attention, as in its EVA
        self.rope.register_buffer("pos_embed", torch.randn(N, WIDTH))

    def add(self, x: Tensor) -> Tensor:
        if self.no_embed_class:
            return with_tokens(x + self.pos_embed, self.cls_token, self.reg_token)
        return with_tokens(x, self.cls_token, self.reg_token) + self.pos_embed


class LearnedRecipe(Encoder):
    """What people write around `nn.TransformerEncoder`."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        setattr(self, name, nn.Parameter(torch.randn(1, N, WIDTH)))

    def add(self, x: Tensor) -> Tensor:
        return x + getattr(self, self.name)[:, : x.shape[1]]


class LookedUp(Encoder):
    def __init__(self) -> None:
        super().__init__()
        self.position_embedding = nn.Embedding(N, WIDTH)

    def add(self, x: Tensor) -> Tensor:
        return x + self.position_embedding(torch.arange(x.shape[1]))


class Sinusoids(nn.Module):
    """PyTorch's tutorial: `(max_len, 1, d)`; others have `(1, max_len, d)`, or do not save it."""

    pe: Tensor

    def __init__(self, shape: tuple[int, ...], persistent: bool) -> None:
        super().__init__()
        angles = torch.arange(N)[:, None] * 100.0 ** -(torch.arange(WIDTH // 2) / 4)
        self.register_buffer("pe", torch.cat([angles.sin(), angles.cos()], 1).reshape(shape), persistent)


class SinusoidRecipe(Encoder):
    def __init__(self, shape: tuple[int, ...] = (N, 1, WIDTH), persistent: bool = True) -> None:
        super().__init__()
        self.positional_encoding = Sinusoids(shape, persistent)

    def add(self, x: Tensor) -> Tensor:
        return x + self.positional_encoding.pe.reshape(N, WIDTH)


class Biot(Encoder):
    """As braindecode's: a table of channels beside sinusoids of times."""

    def __init__(self) -> None:
        super().__init__()
        self.channel_tokens = nn.Embedding(N, WIDTH)
        self.positional_encoding = Sinusoids((1, N, WIDTH), True)

    def add(self, x: Tensor) -> Tensor:
        return x + self.channel_tokens(torch.arange(N))


class Labram(Encoder):
    """As braindecode's: CLS has the first row; times have a table of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.position_embedding = nn.Parameter(torch.randn(1, N + 1, WIDTH))
        self.temporal_embedding = nn.Parameter(torch.randn(1, 2, WIDTH))

    def add(self, x: Tensor) -> Tensor:
        x = with_tokens(x, self.cls_token) + self.position_embedding
        return torch.cat([x[:, :1], x[:, 1:] + self.temporal_embedding[:, 1]], dim=1)


class Eegpt(Encoder):
    """As braindecode's: a row for each electrode of a vocabulary, of which the model's channels have some."""

    chans_id: Tensor

    def __init__(self, names: list[str], rows: list[int]) -> None:
        super().__init__()
        self.target_encoder: Any = nn.Module()
        self.target_encoder.chan_embed = nn.Embedding(10, WIDTH)
        self.channel_names = names
        self.register_buffer("chans_id", torch.tensor([rows]))

    def add(self, x: Tensor) -> Tensor:
        return x + self.target_encoder.chan_embed(self.chans_id)


class Layout(SimpleNamespace):
    """A model of its own, the name of its table in the state dict, and the rows before those of positions."""

    make: Callable[[], Any]
    key: str
    kept: int


def layout(make: Callable[[], Any], key: str, kept: int = 0) -> Layout:
    return Layout(make=make, key=key, kept=kept)


LEARNED = ("pos_embedding", "pos_embed", "position_enc", "positional_embedding")
SAVED = {
    "vit-pytorch": layout(LucidViT, "pos_embedding", 1),
    "vit-pytorch-3-axes": layout(lambda: LucidViT(axes=3), "pos_embedding", 1),
    "vit-pytorch-mean": layout(lambda: LucidViT(classes=0), "pos_embedding"),
    "vit-pytorch-registers": layout(lambda: LucidViT(registers=2), "pos_embedding", 3),
    "timm": layout(TimmViT, "pos_embed", 1),
    "timm-registers": layout(lambda: TimmViT(registers=2), "pos_embed", 3),
    "timm-no-embed-class": layout(lambda: TimmViT(registers=2, no_embed_class=True), "pos_embed"),
    **{name: layout(partial(LearnedRecipe, name), name) for name in LEARNED},
    "nn.Embedding": layout(LookedUp, "position_embedding.weight"),
    "sinusoids": layout(SinusoidRecipe, "positional_encoding.pe"),
    "sinusoids-batch-first": layout(lambda: SinusoidRecipe((1, N, WIDTH)), "positional_encoding.pe"),
    "biot": layout(Biot, "channel_tokens.weight"),
    "labram": layout(Labram, "position_embedding", 1),
}
NOT_SAVED = {
    "sinusoids-not-saved": layout(lambda: SinusoidRecipe((1, N, WIDTH), False), "positional_encoding.pe"),
    "vit-pytorch-simple": layout(SimpleViT, "pos_embedding"),
}
every = pytest.mark.parametrize("case", [*SAVED.values(), *NOT_SAVED.values()], ids=[*SAVED, *NOT_SAVED])


def rows(model: nn.Module, key: str) -> Tensor:
    return model.state_dict()[key].reshape(-1, WIDTH).clone()


def train_once(model: Any, x: Tensor) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    model(x).square().sum().backward()
    optimizer.step()


@every
def test_the_table_is_found_and_the_rows_of_tokens_stay(case: Layout) -> None:
    model, embedding = case.make(), embedding_of()
    before = model.state_dict()
    before = {name: tensor.clone() for name, tensor in before.items()}

    replace_positions(model, embedding, rms=0.3)

    after = rows(model, case.key)
    assert torch.equal(after[case.kept :], embedding.table(dim=WIDTH, rms=0.3))
    if case.key in before:
        assert torch.equal(after[: case.kept], before[case.key].reshape(-1, WIDTH)[: case.kept])
    assert all(torch.equal(model.state_dict()[k], v) for k, v in before.items() if k != case.key)


@every
def test_a_step_of_training_leaves_it_and_the_state_dict_gives_the_model_back(case: Layout) -> None:
    model, x = replace_positions(case.make(), embedding_of()), torch.randn(4, N, 3)
    table, weight = rows(model, case.key), model.head.weight.detach().clone()
    train_once(model, x)
    assert torch.equal(rows(model, case.key), table)
    assert not torch.equal(model.head.weight, weight)

    fresh = case.make()
    if case in NOT_SAVED.values():  # a model without the table's key says so, rather than keep its own
        with pytest.raises(RuntimeError, match="Unexpected"):
            fresh.load_state_dict(model.state_dict())
        replace_positions(fresh, PositionEmbedding(torch.randn(N, 2)))
    fresh.load_state_dict(model.state_dict())

    torch.testing.assert_close(fresh(x), model(x))


@every
def test_the_model_sees_the_positions(case: Layout) -> None:
    embedding, x = embedding_of(), torch.randn(4, N, 3)
    turned = PositionEmbedding(embedding.vectors.roll(1, dims=0))

    first, second = (replace_positions(case.make(), e, rms=1.0) for e in (embedding, turned))

    assert (first(x) - second(x)).abs().max() > 1e-3


@pytest.mark.parametrize("case", SAVED.values(), ids=SAVED)
def test_the_new_rows_are_as_loud_as_the_old(case: Layout) -> None:
    model = case.make()
    old = rows(model, case.key)[case.kept :]

    replace_positions(model, embedding_of())

    new = rows(model, case.key)[case.kept :]
    torch.testing.assert_close(new.square().mean(), old.square().mean())


@pytest.mark.parametrize("case", SAVED.values(), ids=SAVED)
def test_a_table_is_trained_if_asked_and_a_buffer_refuses(case: Layout) -> None:
    if case.key.endswith("pe"):
        with pytest.raises(MaedError) as error:
            replace_positions(case.make(), embedding_of(), trainable=True)
        assert error.value.argument == "trainable"
        return
    model = replace_positions(case.make(), embedding_of(), trainable=True)
    before = rows(model, case.key)

    train_once(model, torch.randn(4, N, 3))

    assert not torch.equal(rows(model, case.key), before)


def test_a_table_alone_in_a_module_is_named_by_that_too() -> None:
    by_module = replace_positions(SinusoidRecipe(), embedding_of(), where="positional_encoding")

    assert torch.equal(
        by_module.positional_encoding.pe, replace_positions(SinusoidRecipe(), embedding_of()).positional_encoding.pe
    )


@pytest.mark.parametrize("kept", [0, 1])
def test_tokens_beside_the_module_of_a_table_may_have_rows(kept: int) -> None:
    table = nn.Parameter(torch.randn(1, N + kept, WIDTH))
    model: Any = holding(pos_embedding=holding(pe=table), cls_token=nn.Parameter(torch.randn(1, 1, WIDTH)))

    replace_positions(model, embedding_of(), rms=1.0)

    assert torch.equal(model.pos_embedding.pe[0, kept:], embedding_of().table(dim=WIDTH, rms=1.0))


# Names.

ELECTRODES = ["Fp1", "Fp2", "C3", "C4", "O1", "O2"]
SHOWN: dict[str, Callable[[list[str]], dict[str, Any]]] = {
    "braindecode": lambda names: {"_chs_info": [{"ch_name": name, "kind": "eeg"} for name in names]},
    "names": lambda names: {"ch_names": names},
    "mne": lambda names: {"info": SimpleNamespace(ch_names=names)},
    "mne-as-a-dict": lambda names: {"info": {"ch_names": names}},
}


@pytest.mark.parametrize("shown", SHOWN.values(), ids=SHOWN)
@settings(max_examples=10, deadline=None)
@given(order=st.permutations(ELECTRODES))
def test_rows_have_the_order_of_the_models_channels(
    shown: Callable[[list[str]], dict[str, Any]], order: list[str]
) -> None:
    model, embedding = Labram(), embedding_of(names=ELECTRODES)
    vars(model).update(shown(order))

    replace_positions(model, embedding, rms=1.0)

    table = embedding.table(dim=WIDTH, rms=1.0)
    assert torch.equal(rows(model, "position_embedding")[1:], table[[ELECTRODES.index(name) for name in order]])


def test_names_are_given_for_models_that_show_none() -> None:
    embedding, order = embedding_of(names=ELECTRODES), ELECTRODES[::-1]

    model = replace_positions(LookedUp(), embedding, names=order, rms=1.0)

    assert torch.equal(model.position_embedding.weight, embedding.table(dim=WIDTH, rms=1.0).flip(0))


def test_electrodes_have_the_rows_that_the_model_looks_them_up_in() -> None:
    order, places = ELECTRODES[::-1], [9, 2, 7, 0, 4, 5]
    embedding, model = embedding_of(names=ELECTRODES), Eegpt(order, places)
    before = model.target_encoder.chan_embed.weight.detach().clone()

    replace_positions(model, embedding, rms=1.0)

    after = model.target_encoder.chan_embed.weight
    assert torch.equal(after[places], embedding.table(dim=WIDTH, rms=1.0).flip(0))
    others = [row for row in range(10) if row not in places]
    assert torch.equal(after[others], before[others])


def test_embeddings_without_names_come_in_the_models_order() -> None:
    vocabulary, some = embedding_of(10), embedding_of(N)

    whole = replace_positions(
        Eegpt(ELECTRODES, [9, 2, 7, 0, 4, 5]), vocabulary, rms=1.0
    ).target_encoder.chan_embed.weight
    part = replace_positions(Eegpt(ELECTRODES, [9, 2, 7, 0, 4, 5]), some, rms=1.0).target_encoder.chan_embed.weight

    assert torch.equal(whole, vocabulary.table(dim=WIDTH, rms=1.0))
    assert torch.equal(part[[9, 2, 7, 0, 4, 5]], some.table(dim=WIDTH, rms=1.0))


def test_names_of_channels_do_not_matter_where_rows_are_something_else() -> None:
    embedding, model = embedding_of(names=ELECTRODES), LookedUp()
    vars(model)["ch_names"] = ["left", "right"]

    replace_positions(model, embedding, rms=1.0)

    assert torch.equal(model.position_embedding.weight, embedding.table(dim=WIDTH, rms=1.0))


def in_capitals() -> nn.Module:
    model = Labram()
    vars(model)["_chs_info"] = [{"ch_name": f"{name.upper()}."} for name in ELECTRODES]
    return model


@pytest.mark.parametrize(
    ("model", "names", "argument", "nearest"),
    [
        (in_capitals, None, "model.chs_info", "FP1."),
        (LookedUp, [*ELECTRODES[:5], "0z"], "names", ""),
        (LookedUp, [*ELECTRODES[:5], "o2."], "names", "o2."),
        (LookedUp, [*ELECTRODES, "Cz"], "names", ""),
        (LookedUp, [*ELECTRODES, "O2"], "names", ""),
        (lambda: Eegpt(ELECTRODES[:5], [1, 2, 3, 4, 5]), None, "model.channel_names", ""),
        (lambda: Eegpt(ELECTRODES, [1, 1, 2, 3, 4, 5]), None, "model", ""),
    ],
)
def test_names_that_do_not_match_are_refused(
    model: Callable[[], nn.Module], names: list[str] | None, argument: str, nearest: str
) -> None:
    with pytest.raises(MaedError) as error:
        replace_positions(model(), embedding_of(names=ELECTRODES), names=names)

    assert error.value.argument == argument
    assert nearest in str(error.value)
    assert "\n" not in str(error.value)


def test_adding_positions_suggests_the_same_name_in_another_spelling() -> None:
    with pytest.raises(MaedError, match=r"'FP1\.'"):
        AddPositions(embedding_of(names=ELECTRODES), WIDTH, names=["FP1.", *ELECTRODES[1:]])


# What cannot be.


def holding(**tables: nn.Module | Tensor) -> nn.Module:
    model = nn.Module()
    for name, table in tables.items():
        setattr(model, name, table)
    return model


class Packed(Tensor):
    """As what quantizes weights hides them: of a dtype that seems to be a float."""


def quantized() -> nn.Module:
    return holding(position_embeddings=torch.ao.nn.quantized.Embedding(N, WIDTH))


def in_the_head_only() -> nn.Module:
    parts = {name: holding(pos_embed=nn.Parameter(torch.randn(N, WIDTH))) for name in ("decoder", "attn_pool", "rope")}
    return holding(**parts)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize(
    ("model", "options", "argument"),
    [
        (lambda: nn.TransformerEncoderLayer(WIDTH, 2, 16), {}, "model"),
        (in_the_head_only, {}, "model"),
        (lambda: holding(pos_embed=nn.Parameter(torch.randn(N, WIDTH)), pe=nn.Embedding(N, WIDTH)), {}, "model"),
        (lambda: holding(pos_embed=nn.Parameter(torch.randint(9, (N, WIDTH)).to(torch.int8), False)), {}, "model"),
        (lambda: holding(pos_embed=nn.Parameter(torch.randn(N, WIDTH).as_subclass(Packed))), {}, "model"),
        (quantized, {}, "model"),
        (quantized, {"where": "position_embeddings"}, "model"),
        (lambda: LearnedRecipe("pos_embed").to("meta"), {}, "model"),
        (lambda: SinusoidRecipe().to("meta"), {}, "model"),
        (lambda: LookedUp().to("meta"), {"rms": 1.0}, "model"),
        (lambda: Eegpt(["a", "b"], [3, 1]), {}, "embedding"),
        (lambda: holding(pos_embed=nn.Parameter(torch.randn(N + 2, WIDTH))), {}, "embedding"),
        # a token, and a row for each position: is the first of them the token's?
        (
            lambda: holding(pos_embed=nn.Parameter(torch.randn(N, WIDTH)), cls_token=nn.Parameter(torch.randn(WIDTH))),
            {},
            "offset",
        ),
        (lambda: holding(embedding=nn.Parameter(torch.randn(N, 2, WIDTH))), {"where": "embedding"}, "where"),
        (LookedUp, {"names": ELECTRODES}, "names"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    model: Callable[[], nn.Module], options: dict[str, Any], argument: str
) -> None:
    made = model()
    before = {name: tensor.detach().clone() for name, tensor in (*made.named_parameters(), *made.named_buffers())}

    with pytest.raises(MaedError) as error:
        replace_positions(made, embedding_of(), **options)

    assert error.value.argument == argument
    assert "\n" not in str(error.value)
    after = dict((*made.named_parameters(), *made.named_buffers()))
    assert all(tensor.is_meta or torch.equal(after[name], tensor) for name, tensor in before.items())


def test_candidates_are_listed() -> None:
    model = holding(image=LearnedRecipe("pos_embed"), text=LookedUp())

    with pytest.raises(MaedError, match=r"image\.pos_embed, text\.position_embedding"):
        replace_positions(model, embedding_of())

    replace_positions(model, embedding_of(), where="text.position_embedding")


# The real ones, where they import.


@pytest.mark.parametrize("continuous", [False, True], ids=["tokens", "continuous"])
def test_x_transformers_adds_the_table_at_the_size_of_the_old(continuous: bool) -> None:
    x_transformers = pytest.importorskip("x_transformers")

    def make() -> Any:
        torch.manual_seed(0)
        layers = x_transformers.Encoder(dim=WIDTH, depth=1, heads=2, attn_dim_head=4)
        if continuous:
            return x_transformers.ContinuousTransformerWrapper(dim_in=3, dim_out=2, max_seq_len=N, attn_layers=layers)
        return x_transformers.TransformerWrapper(num_tokens=9, max_seq_len=N, attn_layers=layers, use_cls_token=True)

    model = make()
    x = torch.randn(4, N, 3) if continuous else torch.randint(9, (4, N))
    old = model.pos_emb(x)

    replace_positions(model, embedding_of())
    torch.testing.assert_close(model.pos_emb(x).square().mean(), old.square().mean())
    table = model.pos_emb.emb.weight.detach().clone()
    train_once(model, x)

    assert torch.equal(model.pos_emb.emb.weight, table)
    fresh = make()
    fresh.load_state_dict(model.state_dict())
    torch.testing.assert_close(fresh.eval()(x), model.eval()(x))


@pytest.mark.extern
def test_timm() -> None:
    timm = pytest.importorskip("timm")
    for kept, options in ((1, {}), (0, {"no_embed_class": True}), (3, {"reg_tokens": 2})):
        sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 3}
        model = timm.create_model("vit_tiny_patch16_224", **sizes, **options)
        replace_positions(model, embedding_of(16), rms=0.1)
        assert torch.equal(model.pos_embed[0, kept:], embedding_of(16).table(dim=24, rms=0.1))
        train_once(model, torch.randn(2, 3, 32, 32))


@pytest.mark.extern
def test_vit_pytorch() -> None:
    vit_pytorch = pytest.importorskip("vit_pytorch")
    sizes = {"image_size": 32, "patch_size": 8, "num_classes": 3, "dim": 16, "depth": 1, "heads": 2, "mlp_dim": 16}
    for model, kept in ((vit_pytorch.ViT(**sizes), 1), (vit_pytorch.SimpleViT(**sizes), 0)):
        replace_positions(model, embedding_of(16), rms=0.1)
        assert torch.equal(model.pos_embedding[kept:], embedding_of(16).table(dim=16, rms=0.1))
        train_once(model, torch.randn(2, 3, 32, 32))


@pytest.mark.extern
@pytest.mark.filterwarnings("ignore")
def test_braindecode() -> None:
    models = pytest.importorskip("braindecode.models")
    channels = [{"ch_name": name, "kind": "eeg", "loc": torch.randn(12).numpy()} for name in ELECTRODES]
    embedding = embedding_of(names=ELECTRODES[::-1])
    inputs: dict[str, Any] = {"n_outputs": 2, "chs_info": channels, "n_times": 400, "sfreq": 200}
    biot, eegpt = models.BIOT(**inputs), models.EEGPT(chan_proj_type="none", **inputs)

    for model in (biot, eegpt):
        replace_positions(model, embedding, rms=0.1)
        train_once(model, torch.randn(2, N, 400))

    assert torch.equal(biot.encoder.channel_tokens.weight, embedding.table(dim=256, rms=0.1).flip(0))
    table = eegpt.target_encoder.chan_embed.weight[eegpt.chans_id[0]]
    assert torch.equal(table, embedding.table(dim=512, rms=0.1).flip(0))
