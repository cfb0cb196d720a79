"""One Perceiver over a table of numbers and names, with positions learned from the table itself.

    python examples/mixed_table.py [--steps 500] [--method partial]

The table is made of the 8 x 8 digits of scikit-learn: half of the pixels are numbers, as one kind of sensor gives
them, the other half words, as another does. Names become indicators (`OneHotEncoder`), positions are learned of all
of them together, and `grouped` makes one of each column. The Perceiver is transformers' (extra `perceiver`). Nothing
is told of where columns lie, or of which kind they are.
"""

import argparse

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import OneHotEncoder
from torch import Tensor, nn
from transformers import PerceiverConfig, PerceiverModel

import maed

WIDTH = 32


class Mixed(nn.Module):
    """A token for each column, its number times one vector or the vector of its word; then a Perceiver."""

    member: Tensor  # (inputs, columns): which column an input is of
    word: Tensor  # (inputs, words): which word it says, none for a number

    def __init__(self, names: list[str], positions: maed.PositionEmbedding | None) -> None:
        super().__init__()
        groups, words = [column_of(name) for name in names], [name.removeprefix(column_of(name)) for name in names]
        for name, all_of in (("member", groups), ("word", words)):
            known = list(dict.fromkeys(all_of))
            self.register_buffer(name, F.one_hot(torch.tensor([known.index(each) for each in all_of])).float())
        self.values = nn.Parameter(torch.randn(self.word.shape[1], WIDTH))
        self.add = None if positions is None else maed.AddPositions(positions, WIDTH, scale=0.3)
        size = {"num_latents": 16, "d_latents": 64, "num_self_attends_per_block": 2, "num_self_attention_heads": 4}
        config = PerceiverConfig(
            d_model=WIDTH, num_blocks=1, num_cross_attention_heads=1, attention_probs_dropout_prob=0.0, **size
        )
        self.perceiver, self.head = PerceiverModel(config), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:  # (B, indicators and numbers) -> (B, 10)
        tokens = torch.einsum("bi,ic,iw->bcw", x, self.member, self.word @ self.values)
        tokens = tokens if self.add is None else self.add(tokens)
        return self.head(self.perceiver(tokens).last_hidden_state.mean(dim=1))


def column_of(name: str) -> str:
    """The column of an indicator: pixel_2_5_dark is of pixel_2_5."""
    return "_".join(name.split("_")[:3])


def accuracy(
    positions: maed.PositionEmbedding | None, names: list[str], parts: list[Tensor], labels: list[Tensor], steps: int
) -> float:
    """Share of the test that a model tells right after its training."""
    torch.manual_seed(0)
    model = Mixed(names, positions)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(steps):
        rows = torch.randint(len(parts[0]), (32,))
        optimizer.zero_grad()
        F.cross_entropy(model(parts[0][rows]), labels[0][rows]).backward()
        optimizer.step()
    with torch.no_grad():
        return float((model.eval()(parts[1]).argmax(dim=1) == labels[1]).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--method", default="partial", help="as in maed.learn: auto takes a minute more")
    chosen = parser.parse_args()
    digits = load_digits(as_frame=True)
    table, rng = digits.data.loc[:, digits.data.std() > 0.5], np.random.default_rng(0)
    named = sorted(rng.choice(table.columns, table.shape[1] // 2, replace=False))
    cut = {name: pd.cut(table[name], [-1, 4, 10, 16], labels=["dark", "gray", "bright"]) for name in named}
    table = table.assign(**cut)[rng.permutation(table.columns)]  # in an order that says nothing
    encoder = make_column_transformer(
        (OneHotEncoder(sparse_output=False), named), remainder="passthrough", verbose_feature_names_out=False
    )
    indicators = encoder.set_output(transform="pandas").fit_transform(table).astype("float32")
    train, test, *labels = train_test_split(indicators, digits.target, test_size=0.3, random_state=0)
    found = maed.learn(train, method=chosen.method, random_state=0, verbose=False)
    positions = found.grouped([column_of(name) for name in found.names])
    near = {name: positions.neighbors(name, 4) for name in positions.names}
    mixed = np.mean([(name in named) != (other in named) for name, four in near.items() for other in four])
    scaled = [torch.tensor(((part - train.mean()) / train.std()).to_numpy()).float() for part in (train, test)]
    targets = [torch.tensor(part.to_numpy()) for part in labels]
    wrong = maed.PositionEmbedding(positions.vectors[torch.randperm(positions.n)])
    arms = {"positions": positions, "shuffled": wrong, "none": None}
    of = {name: accuracy(arm, list(train.columns), scaled, targets, chosen.steps) for name, arm in arms.items()}
    told = ", ".join(f"{name} {value:.3f}" for name, value in of.items())
    print(f"{mixed:.0%} of neighbors are of the other kind; accuracy: {told}")


if __name__ == "__main__":
    main()
