"""From an array to a map: find where shuffled pixels belong, from their values alone.

    python examples/array_to_map.py [--method partial] [--out map.png]

The array holds the 8 x 8 digits of scikit-learn, with their pixels in random order. An embedding is learned without
being told the order; afterwards its nearest neighbors are compared with the true ones, and the map is drawn.
"""

import argparse

import numpy as np
from sklearn.datasets import load_digits

import maed
from maed import plots


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="partial", help="see maed.learn; auto compares all, in a few minutes")
    parser.add_argument("--out", default="map.png", help="file for the picture")
    given = parser.parse_args()

    pixels = load_digits().data  # (1797, 64)
    order = np.random.default_rng(0).permutation(64)
    used = order[pixels[:, order].std(axis=0) > 0.5]  # pixels at the border are always black
    X = pixels[:, used].astype(np.float32)  # (1797, N): all that is learned from
    embedding = maed.learn(X, dim=8, method=given.method, random_state=0, verbose=False)
    embedding.save_pretrained("digits-positions")
    plots.save(plots.figure_of(embedding.plot()), given.out)

    places = np.stack([used // 8, used % 8], axis=1)  # where the pixels truly are, (N, 2)
    distance = np.linalg.norm(places[:, None] - places, axis=2)
    near = np.array([distance[i, embedding.neighbors(i, k=4)].mean() for i in range(len(X.T))])
    chance = distance.sum() / (len(used) * (len(used) - 1))
    print(f"distance of the 4 nearest: {near.mean():.2f} pixels, of random ones {chance:.2f}; see {given.out}")


if __name__ == "__main__":
    main()
