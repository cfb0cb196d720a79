"""A transformer over electrodes that fills in bad ones, with positions learned from recordings and matched by name.

    python examples/eeg_transformer.py FOLDER [--steps 250]

FOLDER holds `eeg64/eeg64.npz`: 61 electrodes, 20 subjects (UCI, CC BY 4.0). The same model is trained with positions
learned without a montage, with these at the wrong electrodes, and with a table of its own.
"""

import argparse

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

import maed

MOMENTS, HIDDEN, WIDTH = 16, 0.25, 32  # a window is 1/16 s; the share of electrodes that are bad; channels


class Electrodes(nn.Module):
    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.ch_names, self.embed = names, nn.Linear(MOMENTS + 1, WIDTH)
        self.pos_embed = nn.Parameter(torch.randn(1, len(names), WIDTH))
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 2 * WIDTH, dropout=0.0, batch_first=True, norm_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(WIDTH, MOMENTS)

    def error(self, x: Tensor, generator: torch.Generator) -> Tensor:  # (B, N, MOMENTS) -> share not explained
        bad = torch.rand(x.shape[:2], generator=generator) < HIDDEN
        shown = torch.cat([x.masked_fill(bad[..., None], 0.0), bad[..., None].float()], dim=2)
        made = self.head(self.encoder(self.embed(shown) + self.pos_embed))
        return (made - x)[bad].square().mean() / x[bad].square().mean()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--steps", type=int, default=250)
    given = parser.parse_args()
    stored = np.load(f"{given.folder}/eeg64/eeg64.npz")
    seen = ~np.isin(stored["subject"], np.unique(stored["subject"])[::4])  # every fourth subject is the test
    table = pd.DataFrame(stored["inputs"], columns=stored["names"])  # microvolts, a row for each moment
    positions = maed.learn(table[seen], dim=16, method="correlation", random_state=0, verbose=False)
    wrong = maed.PositionEmbedding(positions.vectors.flip(0), names=positions.names)
    recording = table[sorted(table.columns)] / table[seen].to_numpy().std()  # another device, another order
    known, new = [torch.tensor(recording[rows].to_numpy()).unfold(0, MOMENTS, MOMENTS) for rows in (seen, ~seen)]
    for name, arm in (("positions", positions), ("shuffled", wrong), ("own table", None)):
        generator, model = torch.manual_seed(0), Electrodes(list(recording.columns))
        if arm is not None:
            maed.replace_positions(model, arm)  # found as pos_embed, its rows in the order of ch_names
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        for _ in range(given.steps):
            optimizer.zero_grad()
            model.error(known[torch.randint(len(known), (32,))], generator).backward()
            optimizer.step()
        print(f"unexplained at bad electrodes, {name}: {model.eval().error(new, torch.manual_seed(1)).item():.3f}")


if __name__ == "__main__":
    main()
