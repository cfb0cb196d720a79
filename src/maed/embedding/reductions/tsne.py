"""t-SNE, the original's reduction."""

from __future__ import annotations

import numpy as np
from sklearn.manifold import TSNE

from maed.embedding.maps import distances_of, isomap
from maed.embedding.reduction import Reduction


class Tsne(Reduction):
    """t-SNE (van der Maaten and Hinton 2008; scikit-learn's), from Isomap: exact beyond 3 channels.

    In many channels its kernel is nearly Gaussian and its maps are small: scikit-learn's steps and exaggeration, made
    for 2, tear them apart or collapse them, so they are smaller there. Where it is exact, scikit-learn 1.9 follows no
    gradient of its own objective: the pull of a pair has the kernel, a Student's of d - 1 degrees of freedom, to the
    wrong power, which leaves far positions where Isomap put them. Followed rightly, the objective keeps neighbors a
    little better and large distances much worse, since in many channels it is 0 for many maps. Time grows with N^2 d a
    step where it is exact, with N log N otherwise.
    """

    shown_dim = 2  # beyond 3 it takes minutes; in 2 it is what people look at

    def reduce(self, similarity: np.ndarray, d: int, k: int, steps: float) -> np.ndarray:
        """The map of perplexity k, as far as that may be (N - 1) / 3 at most."""
        n = len(similarity)
        start = isomap(similarity, d, k)
        start = (start / (start[:, 0].std() or 1.0)).astype(np.float32)
        few = {"init": 1e-4 * start}
        many = {"init": start, "method": "exact", "max_iter": 500, "early_exaggeration": 8.0, "learning_rate": n / 48}
        model = TSNE(
            d,
            metric="precomputed",
            perplexity=min(float(k), max(1.0, (n - 1) / 3)),
            random_state=0,
            n_jobs=1,  # threads add up in another order
            **(few if d <= 3 else many),
        )
        return model.fit_transform(distances_of(similarity) ** 2)  # the similarity, turned round, keeps more neighbors
