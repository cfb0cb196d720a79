"""A vision transformer on images whose pixels are shuffled, with positions learned from the images.

    python examples/vit.py [--steps 300] [--method partial]

The images are the 8 x 8 digits of scikit-learn, with their pixels in random order and each pixel a patch. The same ViT
of transformers (extra `perceiver`) is trained on 100 labels with learned positions, with these at the wrong pixels, and
with the position table that it would train from random numbers.
"""

import argparse

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from transformers import ViTConfig, ViTForImageClassification

import maed

LABELS = 100


def accuracy(positions: maed.PositionEmbedding | None, parts: list[torch.Tensor], steps: int) -> float:
    """Train a ViT with these positions; return its accuracy on the test images."""
    torch.manual_seed(0)
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    model = ViTForImageClassification(ViTConfig(image_size=8, patch_size=1, num_channels=1, num_labels=10, **size))
    if positions is not None:
        maed.replace_positions(model, positions)  # the row of the CLS token stays
    x, test, y, truth = parts
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(steps):
        rows = torch.randint(LABELS, (32,))
        optimizer.zero_grad()
        model(x[rows], labels=y[rows]).loss.backward()
        optimizer.step()
    with torch.no_grad():
        return float((model.eval()(test).logits.argmax(dim=1) == truth).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--method", default="partial", help="see maed.learn; auto compares all, in a few minutes")
    given = parser.parse_args()

    images, labels = load_digits(return_X_y=True)
    images = (images[:, np.random.default_rng(0).permutation(64)] / 8 - 1).astype(np.float32)  # (1797, 64)
    noise = np.random.default_rng(1).normal(scale=0.01, size=images.shape)  # some pixels are always black
    positions = maed.learn(images + noise, dim=32, method=given.method, random_state=0, verbose=False)
    wrong = maed.PositionEmbedding(positions.vectors[torch.randperm(64)])
    split = train_test_split(images.reshape(-1, 1, 8, 8), labels, train_size=LABELS, random_state=0)
    parts = [torch.as_tensor(part) for part in split]
    found = {"learned": positions, "at wrong pixels": wrong, "own table": None}
    print("accuracy: " + ", ".join(f"{name} {accuracy(arm, parts, given.steps):.3f}" for name, arm in found.items()))


if __name__ == "__main__":
    main()
