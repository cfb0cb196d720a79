"""Position embeddings in models of plain PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maed.embedding import PositionEmbedding
from maed.errors import MaedError
from maed.integrations.replacing import check_positive, root_mean_square

_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


class AddPositions(nn.Module):
    """Adds a position embedding to embedded inputs, in models of plain PyTorch such as `nn.TransformerEncoder`.

    The vectors go through a linear map that starts orthogonal, so that distances between positions are kept where
    there are channels enough, and a learned gain: at the start what is added has the root mean square `scale`, whatever
    the embedding's own. Map and gain are trained; the vectors only if `positions.trainable`.

    Args:
        positions: N positions in d channels; becomes a submodule.
        width: channels of the inputs.
        scale: root mean square, over all positions, of what is added at the start; that of the inputs is a good choice.

    Raises:
        MaedError: an argument cannot be.

    Example:
        >>> add = AddPositions(PositionEmbedding(torch.randn(49, 16)), width=32)
        >>> add(torch.randn(8, 49, 32)).shape
        torch.Size([8, 49, 32])
    """

    def __init__(self, positions: PositionEmbedding, width: int, *, scale: float = 1.0) -> None:
        super().__init__()
        if not isinstance(positions, PositionEmbedding):
            raise MaedError(f"positions: must be a PositionEmbedding, got {type(positions).__name__}")
        if isinstance(width, bool) or not isinstance(width, int) or width < 1:
            raise MaedError(f"width: must be an integer of at least 1, got {width!r}")
        check_positive("scale", scale)
        self.positions = positions
        self.linear = nn.Linear(positions.dim, width, bias=False)
        nn.init.orthogonal_(self.linear.weight)
        with torch.no_grad():
            start = root_mean_square(self.linear(positions.vectors.to(self.linear.weight)))
        # vectors of zeros are those of a model that is about to load its weights
        self.gain = nn.Parameter(torch.tensor(scale / start if start else float(scale)))

    def forward(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        """Inputs with their positions added.

        Args:
            x: `(B, L, width)`.
            index: `(B, L)` or `(L,)` integers from 0 to N - 1: which position each input has, for models that see a
                subset. If None, the inputs have the first L positions.

        Returns:
            `(B, L, width)`, of the dtype of `x`.

        Raises:
            MaedError: a shape that does not fit, or more inputs than positions.
            IndexError: on a CPU, an index that is no position's, as `nn.Embedding` has it.
        """
        width = self.linear.out_features
        if x.ndim != 3 or x.shape[2] != width:
            raise MaedError(f"x: must have shape (B, L, {width}), got {tuple(x.shape)}")
        length, n = x.shape[1], self.positions.n
        if index is None:
            if length > n:
                raise MaedError(f"x: must have at most {n} inputs, one for each position, got {length}")
            return x + self._added(self.positions.vectors[:length]).to(x.dtype)
        if index.dtype not in _INTEGERS or tuple(index.shape) not in ((length,), tuple(x.shape[:2])):
            raise MaedError(
                f"index: must be integers of shape ({length},) or {tuple(x.shape[:2])}, got {index.dtype} of shape "
                f"{tuple(index.shape)}"
            )
        # the map first: batches share it
        return x + F.embedding(index.long(), self._added(self.positions.vectors)).to(x.dtype)

    def _added(self, vectors: Tensor) -> Tensor:
        return self.gain * self.linear(vectors.to(self.linear.weight.dtype))  # (L, width)

    def extra_repr(self) -> str:
        """Channels for `print`."""
        return f"width={self.linear.out_features}"
