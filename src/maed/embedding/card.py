"""The model card of a position embedding: what a reader who finds the folder needs to know."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import ModelCard, ModelCardData

from maed.data.geometry import sampled_note
from maed.errors import MaedError
from maed.files import replacing
from maed.registry import BASELINES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from maed.embedding.position_embedding import PositionEmbedding

_METRICS = {
    "knn_recall": ("kNN recall", "share of each position's nearest that are true neighbors"),
    "spearman": ("Spearman", "rank correlation of distances in the embedding with true distances"),
    "coordinate_r2": ("coordinate R²", "how well ridge regression reads the true coordinates off the vectors"),
    "trustworthiness": ("trustworthiness", "how few positions become neighbors that are none"),
    "probe_loss": (
        "probe loss",
        "how well a small autoencoder learns when given these positions; lower is better",
    ),
    "neighbor_error": ("neighbor error", "held-out values predicted from the nearest positions; lower is better"),
    "split_half": ("split-half agreement", "share of neighbors on which two halves of the draws agree"),
}
"""Names of metrics for readers, and what they mean; others are shown by the name they have."""

_MADE = {"maed": "learned by a masked autoencoder from unlabeled data", "seed": "published by the original"}


def model_card(embedding: PositionEmbedding, metrics: Mapping[str, Any], *, figure: bool, where: str) -> ModelCard:
    """The card of `embedding`.

    Args:
        embedding: The embedding to describe.
        metrics: Numbers by name, from `maed evaluate` for instance.
        figure: True if `figure.png` lies beside the card.
        where: The name that `from_pretrained` finds it by, as the example shows it.
    """
    resampled, source = embedding.provenance.get("resampled"), _plain(embedding.source or "data")
    data = ModelCardData(library_name="maed", tags=["position-embedding", "masked-autoencoder", "model_hub_mixin"])
    label = embedding.label.removesuffix("-resampled")
    made = BASELINES.get(label).made if label in BASELINES.names else _MADE.get(label, "by hand")
    parts = [
        f"# Position embedding learned from {source}",
        f"A vector for each of {embedding.n} positions, in {embedding.dim} channels: {made}. It tells a Perceiver, or "
        "any transformer, where\neach input sits. Each channel is centered, and the mean square over all entries is 1.",
    ]
    if resampled:
        parts.append(
            f"**Resampled** from {_plain(resampled)}: the geometry was known and used, so whatever it is compared with "
            "may use it too."
        )
    if (before := embedding.provenance.get("extended_from")) is not None:
        parts.append(
            f"**Extended** from {_plain(before)} positions: others came later, and were placed from those that their "
            "values correlate with."
        )
    if figure:
        parts.append("![The positions, laid out by this embedding alone](figure.png)")
    parts += [
        "## Use",
        f"""```python
import maed

positions = maed.PositionEmbedding.from_pretrained("{_plain(where)}")
positions(batch_size=8)  # (8, {embedding.n}, {embedding.dim}), to be added to embedded inputs or concatenated with them
positions.neighbors(0, k=4)  # the positions nearest to the first
```""",
        "`maed.replace_positions(model, positions)` puts it in the place of the position table of a model of "
        "transformers.\nIt fits inputs whose positions mean the same, in the same order, as in the data below.",
        "## Origin",
        "\n".join(f"- {name}: {_plain(value)}" for name, value in _facts(embedding)),
        "All settings are in `config.json`.",
        "## Quality",
    ]
    rows = ["| metric | value | meaning |", "| --- | ---: | --- |"]
    for name, value in metrics.items():
        if isinstance(value, (int, float)):
            shown, meaning = _METRICS.get(name, (_plain(name), ""))
            rows.append(f"| {shown} | {value:.4f} | {meaning} |")
    parts.append("\n".join(rows) if len(rows) > 2 else "Nothing was measured of it.")
    if len(rows) > 2 and (note := sampled_note(embedding.n)) is not None:
        parts.append(note)
    if resampled or embedding.geometry is None:
        parts.append("No true geometry is known.")
    else:
        parts.append(
            f"The true geometry ({embedding.geometry.kind}) is stored beside the vectors as `coordinates`, for "
            "evaluation. The\nvectors were learned without it."
        )
    # put together here: the templates of huggingface_hub import jinja2
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n")


def _facts(embedding: PositionEmbedding) -> list[tuple[str, Any]]:
    """Known facts about the origin of an embedding, as names and values."""
    made_with = embedding.provenance.get("made_with") or {}
    data, autoencoder = made_with.get("data") or {}, made_with.get("autoencoder") or {}
    versions = embedding.provenance.get("versions") or {}
    facts = {
        "data": embedding.source,
        "positions permuted": "no" if data and data.get("permute") is None else data.get("permute"),
        "autoencoder": autoencoder.get("kind"),
        "position vectors started from": autoencoder.get("init"),
        "seed": autoencoder.get("seed"),
        "estimator": embedding.provenance.get("estimator"),
        "reduction": embedding.provenance.get("reduction"),
        "channels before they were projected": embedding.provenance.get("projected"),
        "fingerprint": embedding.fingerprint,
        "made by": ", ".join(f"{name} {version}" for name, version in versions.items() if version),
    }
    return [(name, value) for name, value in facts.items() if value not in (None, "")]


def _plain(value: Any) -> str:
    """A value as one line of Markdown that stays text."""
    text = " ".join(("" if value is None else str(value)).split())
    return text.replace("<", "&lt;").replace("|", "\\\\|").replace('"', "'")


def write_figure(figure: Figure | str | Path, target: Path) -> None:
    """Write the figure of a card: one of matplotlib's, or a PNG file.

    Raises:
        MaedError: a file that is no PNG.
    """
    if isinstance(figure, (str, Path)):
        content = Path(figure).read_bytes()
        if not content.startswith(b"\x89PNG"):
            raise MaedError(f"figure must be a PNG file; {figure} is not")
        with replacing(target) as temporary:
            temporary.write_bytes(content)
        return
    with replacing(target) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
