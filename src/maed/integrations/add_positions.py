"""Position embeddings in models of plain PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maed.embedding import PositionEmbedding
from maed.errors import MaedError
from maed.integrations.naming import order
from maed.integrations.replacing import check_positive, root_mean_square

_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


class AddPositions(nn.Module):
    """Add a position embedding to embedded inputs, in plain PyTorch models such as `nn.TransformerEncoder`.

    The vectors pass through a linear map, initially orthogonal, so that distances are preserved if `width` is at least
    d, and a learned gain, so that the initial output has root mean square `scale` whatever the embedding's own. Map and
    gain are trained; the vectors only if `positions.trainable`.

    Args:
        positions: N positions in d channels; becomes a submodule.
        width: Channels of the inputs.
        scale: Initial root mean square, over all positions, of what is added; that of the inputs is a good choice.
        names: N names of the inputs, in their order; the output is in the order of the embedding's positions, matched
            by name. None if inputs are in that order already.
        batch_first: As in `torch.nn.TransformerEncoder`: True for inputs `(B, L, width)`, False for `(L, B, width)`.
            None means True, but refuses inputs of which only the first axis has length N.

    Raises:
        MaedError: An argument is invalid, the embedding has no names, or `names` are not its names, each once.

    Example:
        >>> add = AddPositions(PositionEmbedding(torch.randn(49, 16)), width=32)
        >>> add(torch.randn(8, 49, 32)).shape
        torch.Size([8, 49, 32])
    """

    order: Tensor | None

    def __init__(
        self,
        positions: PositionEmbedding,
        width: int,
        *,
        scale: float = 1.0,
        names: Sequence[str] | None = None,
        batch_first: bool | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(positions, PositionEmbedding):
            raise MaedError(f"positions must be a PositionEmbedding, got {type(positions).__name__}")
        if isinstance(width, bool) or not isinstance(width, int) or width < 1:
            raise MaedError(f"width must be an integer of at least 1, got {width!r}")
        check_positive("scale", scale)
        if batch_first is not None and not isinstance(batch_first, bool):
            raise MaedError(f"batch_first must be True, False or None, got {batch_first!r}")
        self.positions, self.batch_first = positions, batch_first
        # not in the state: it says how inputs come, which a model that is loaded may be told anew
        self.register_buffer("order", None if names is None else order(positions, names), persistent=False)
        self.linear = nn.Linear(positions.dim, width, bias=False)
        nn.init.orthogonal_(self.linear.weight)
        with torch.no_grad():
            start = root_mean_square(self.linear(positions.vectors.to(self.linear.weight)))
        # vectors of zeros are those of a model that is about to load its weights
        self.gain = nn.Parameter(torch.tensor(scale / start if start else float(scale)))

    def forward(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        """Add positions to inputs.

        Args:
            x: `(B, L, width)`, or `(L, B, width)` if `batch_first` is False. L must be N if the inputs have names.
            index: `(B, L)` or `(L,)` integers from 0 to N - 1, for either `batch_first`: the position of each input,
                for models that see a subset. By default inputs have the first L positions.

        Returns:
            A tensor with the shape and dtype of `x`, in the order of the embedding's positions if inputs have names.

        Raises:
            MaedError: A shape does not fit, there are more inputs than positions, or `index` is given with names.
            IndexError: On a CPU, `index` is out of range, as with `nn.Embedding`.
        """
        width, first = self.linear.out_features, self.batch_first is not False
        if x.ndim != 3 or x.shape[2] != width:
            raise MaedError(f"x must have shape ({'B, L' if first else 'L, B'}, {width}), got {tuple(x.shape)}")
        inputs = x if first else x.transpose(0, 1)  # (B, L, width)
        batch, length = inputs.shape[:2]
        if index is None:
            self._check_length(x, length, batch)
            added = self._added(self.positions.vectors[:length])  # (L, width)
            inputs = inputs if self.order is None else inputs.index_select(1, self.order)
        elif self.order is not None:
            raise MaedError("index must be None if names say which position each input has")
        elif index.dtype not in _INTEGERS or tuple(index.shape) not in ((length,), (batch, length)):
            raise MaedError(
                f"index must be integers of shape ({length},) or {(batch, length)}, got {index.dtype} of shape "
                f"{tuple(index.shape)}"
            )
        else:
            added = F.embedding(index.long(), self._added(self.positions.vectors))  # the map first: batches share it
        inputs = inputs + added.to(x.dtype)
        return inputs if first else inputs.transpose(0, 1)

    def _check_length(self, x: Tensor, length: int, batch: int) -> None:
        """Refuse inputs of another length than positions have, and those whose axes may be the other way round."""
        n, first = self.positions.n, self.batch_first is not False
        too_many, too_few = length > n, length < n and self.order is not None
        turned = length < n and batch == n and self.batch_first is None
        if turned and not too_few:
            raise MaedError(
                f"x must be (B, L, width), and axis 0 of {tuple(x.shape)} has the {n} of the positions; set "
                "batch_first=False if that is the length, otherwise batch_first=True"
            )
        if too_many or too_few:
            least = n if self.order is not None else f"at most {n}"
            other = f"; axis {int(not first)} has {n}: if that is the length, say batch_first={not first}"
            raise MaedError(
                f"x must have {least} inputs on axis {int(first)}, one for each position, got {tuple(x.shape)}"
                f"{other if batch == n else ''}"
            )

    def _added(self, vectors: Tensor) -> Tensor:
        return self.gain * self.linear(vectors.to(self.linear.weight.dtype))  # (L, width)

    def extra_repr(self) -> str:
        """Channels for `print`."""
        return f"width={self.linear.out_features}"
