"""A transformer over electrodes that fills in bad ones, with positions learned from recordings and matched by name.

    python examples/eeg_transformer.py FOLDER [--steps 250] [--method correlation]

FOLDER holds `eeg64/eeg64.npz`: 61 electrodes, 20 subjects (UCI, CC BY 4.0). Positions are learned without a montage and
matched by name. The same model is trained with them, with them at the wrong electrodes, and with a table of its own.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

import maed

MOMENTS, HIDDEN = 16, 0.25  # a window is 1/16 s; the share of electrodes that are bad


class Electrodes(nn.Module):
    """A token for each electrode: its window, and whether it is bad."""

    def __init__(self, names: list[str], width: int = 32) -> None:
        super().__init__()
        self.ch_names = names
        self.embed = nn.Linear(MOMENTS + 1, width)
        self.pos_embed = nn.Parameter(torch.randn(1, len(names), width))
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, num_layers=2, enable_nested_tensor=False)
        self.head = nn.Linear(width, MOMENTS)

    def forward(self, x: Tensor, bad: Tensor) -> Tensor:  # (B, N, MOMENTS), (B, N) -> (B, N, MOMENTS)
        shown = torch.cat([x.masked_fill(bad[..., None], 0.0), bad[..., None].float()], dim=2)
        return self.head(self.encoder(self.embed(shown) + self.pos_embed))


def error(model: nn.Module, x: Tensor, generator: torch.Generator) -> Tensor:
    """Mean squared error at electrodes that are hidden at random, as a share of their mean square."""
    bad = torch.rand(x.shape[:2], generator=generator) < HIDDEN
    return (model(x, bad) - x)[bad].square().mean() / x[bad].square().mean()


def train(positions: maed.PositionEmbedding | None, names: list[str], parts: list[Tensor], steps: int) -> float:
    """The share of what bad electrodes record that is not explained, of subjects never seen."""
    generator, model = torch.manual_seed(0), Electrodes(names)
    if positions is not None:
        maed.replace_positions(model, positions)  # found as pos_embed, its rows in the order of ch_names
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        error(model, parts[0][torch.randint(len(parts[0]), (32,))], generator).backward()
        optimizer.step()
    with torch.no_grad():
        return float(error(model.eval(), parts[1], torch.Generator().manual_seed(1)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--method", default="correlation", help="as in maed.learn: auto takes a minute more")
    chosen = parser.parse_args()
    torch.manual_seed(0)
    stored = np.load(chosen.folder / "eeg64" / "eeg64.npz")
    seen = ~np.isin(stored["subject"], np.unique(stored["subject"])[::4])  # every fourth subject is the test
    table = pd.DataFrame(stored["inputs"], columns=stored["names"])  # microvolts, a row for each moment
    positions = maed.learn(table[seen], dim=16, method=chosen.method, random_state=0, verbose=False)
    wrong = maed.PositionEmbedding(positions.vectors[torch.randperm(positions.n)], names=positions.names)
    recording = table[sorted(table.columns)] / table[seen].to_numpy().std()  # another device, another order
    parts = [torch.tensor(recording[rows].to_numpy()).unfold(0, MOMENTS, MOMENTS) for rows in (seen, ~seen)]
    arms = {"positions": positions, "shuffled": wrong, "own table": None}
    found = {name: train(arm, list(recording.columns), parts, chosen.steps) for name, arm in arms.items()}
    print("unexplained at bad electrodes: " + ", ".join(f"{name} {value:.3f}" for name, value in found.items()))


if __name__ == "__main__":
    main()
