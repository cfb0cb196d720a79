"""The next day at weather stations, forecast by a transformer that has learned where the stations are.

    python examples/forecast_stations.py FOLDER [--steps 200] [--method correlation]

FOLDER holds `noaa_tmax/noaa_tmax.npz`: 137 stations of the central United States, daily maximum temperatures of four
years (https://github.com/andrewzm/STRbook). Positions are learned from the first three years, and neither longitude nor
latitude is read. The same model is trained with these positions, with them given to the wrong stations, and without.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import maed

DAYS, TEST = 7, 365  # the days that a forecast sees; the last year is the test


class Forecaster(nn.Module):
    """A token for each station: its last days, and which of them are missing."""

    def __init__(self, positions: maed.PositionEmbedding | None, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(2 * DAYS, width), nn.LayerNorm(width))
        self.add = nn.Identity() if positions is None else maed.AddPositions(positions, width)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, num_layers=2, enable_nested_tensor=False)
        self.head = nn.Linear(width, 1)

    def forward(self, days: Tensor) -> Tensor:  # (B, N, DAYS), NaN where missing -> (B, N)
        known = days.isfinite()
        tokens = self.embed(torch.cat([days.nan_to_num(), known.float()], dim=2))
        return self.head(self.encoder(self.add(tokens))).squeeze(2)


def error(model: nn.Module, windows: Tensor) -> Tensor:
    """Mean squared error of the last day of windows `(B, DAYS + 1, N)`, where it is known."""
    truth = windows[:, -1]
    known = truth.isfinite()
    return (model(windows[:, :-1].transpose(1, 2)) - truth)[known].square().mean()


def train(positions: maed.PositionEmbedding | None, days: Tensor, steps: int) -> float:
    """The root mean squared error on the last year, in the units of `days`."""
    torch.manual_seed(0)
    windows = days.unfold(0, DAYS + 1, 1).transpose(1, 2)  # (days, DAYS + 1, N)
    model, past, future = Forecaster(positions), windows[: -TEST - DAYS], windows[-TEST:]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        error(model, past[torch.randint(len(past), (16,))]).backward()
        optimizer.step()
    with torch.no_grad():
        return float(error(model.eval(), future).sqrt())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--method", default="correlation", help="as in maed.learn: auto takes a minute more")
    chosen = parser.parse_args()
    torch.manual_seed(0)
    stored = np.load(chosen.folder / "noaa_tmax" / "noaa_tmax.npz")["anomalies"]  # (1461, 137) degrees F
    stored = stored[:, np.isfinite(stored[:-TEST]).mean(axis=0) > 0.5]  # a station that came later has no past
    positions = maed.learn(stored[:-TEST], dim=16, method=chosen.method, random_state=0, verbose=False)
    wrong = maed.PositionEmbedding(positions.vectors[torch.randperm(positions.n)])
    days = torch.from_numpy(stored) / 10  # about one
    arms = {"positions": positions, "shuffled": wrong, "none": None}
    found = {name: 10 * train(arm, days, chosen.steps) for name, arm in arms.items()}
    print("error of the next day, degrees F: " + ", ".join(f"{name} {value:.2f}" for name, value in found.items()))


if __name__ == "__main__":
    main()
