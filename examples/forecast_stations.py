"""The next day at weather stations, forecast by a transformer that has learned where the stations are.

    python examples/forecast_stations.py FOLDER [--steps 200]

FOLDER holds `noaa_tmax/noaa_tmax.npz`: 137 stations of the central United States, daily maximum temperatures of four
years (https://github.com/andrewzm/STRbook). Positions are learned from the first three years, without longitude or
latitude. The same model is trained with them, with them at the wrong stations, and without positions.
"""

import argparse

import numpy as np
import torch
from torch import Tensor, nn

import maed

DAYS, TEST, WIDTH = 7, 365, 32  # days that a forecast sees; days of the test; channels


class Forecaster(nn.Module):
    def __init__(self, positions: maed.PositionEmbedding | None) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(2 * DAYS, WIDTH), nn.LayerNorm(WIDTH))
        self.add = nn.Identity() if positions is None else maed.AddPositions(positions, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 2 * WIDTH, dropout=0.0, batch_first=True, norm_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(WIDTH, 1)

    def error(self, windows: Tensor) -> Tensor:  # (B, N, DAYS + 1), NaN where missing -> mean squared error
        seen, truth = windows[..., :-1], windows[..., -1]
        tokens = self.embed(torch.cat([seen.nan_to_num(), seen.isfinite().float()], dim=2))
        forecast = self.head(self.encoder(self.add(tokens))).squeeze(2)
        return (forecast - truth)[truth.isfinite()].square().mean()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--steps", type=int, default=200)
    given = parser.parse_args()
    days = np.load(f"{given.folder}/noaa_tmax/noaa_tmax.npz")["anomalies"]  # (1461, 137) degrees F
    days = days[:, np.isfinite(days[:-TEST]).mean(axis=0) > 0.5]  # without stations that came later
    positions = maed.learn(days[:-TEST], dim=16, method="correlation", random_state=0, verbose=False)
    wrong = maed.PositionEmbedding(positions.vectors.flip(0))
    windows = (torch.from_numpy(days) / 10).unfold(0, DAYS + 1, 1)  # (days, N, DAYS + 1), about one
    past, future = windows[: -TEST - DAYS], windows[-TEST:]
    for name, arm in (("positions", positions), ("shuffled", wrong), ("none", None)):
        torch.manual_seed(0)
        model = Forecaster(arm)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        for _ in range(given.steps):
            optimizer.zero_grad()
            model.error(past[torch.randint(len(past), (16,))]).backward()
            optimizer.step()
        print(f"error of the next day, {name}: {10 * model.eval().error(future).detach().sqrt():.2f} degrees F")


if __name__ == "__main__":
    main()
