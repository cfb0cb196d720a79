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
    """Adds a position embedding to embedded inputs, in models of plain PyTorch such as `nn.TransformerEncoder`.

    The vectors go through a linear map that starts orthogonal, so that distances between positions are kept where
    there are channels enough, and a learned gain: at the start what is added has the root mean square `scale`, whatever
    the embedding's own. Map and gain are trained; the vectors only if `positions.trainable`.

    Args:
        positions: N positions in d channels; becomes a submodule.
        width: channels of the inputs.
        scale: root mean square, over all positions, of what is added at the start; that of the inputs is a good choice.
        names: what the inputs are called, N names in the order in which they come: they are then put in the order of
            the embedding's positions, found by name. None for inputs that come in that order.
        batch_first: as `torch.nn.TransformerEncoder` has it: True for inputs `(B, L, width)`, False for
            `(L, B, width)`. None is True, but refuses inputs of which only the first axis has the length N.

    Raises:
        MaedError: an argument cannot be; the embedding has no names, or one of them is missing, or there twice, or
            the name of none.

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
        """Inputs with their positions added.

        Args:
            x: `(B, L, width)`; `(L, B, width)` where `batch_first` is False. L is N where the inputs have names.
            index: `(B, L)` or `(L,)` integers from 0 to N - 1, whatever `batch_first` is: which position each input
                has, for models that see a subset. If None, the inputs have the first L positions.

        Returns:
            Of the shape and dtype of `x`; where the inputs have names, in the order of the embedding's positions.

        Raises:
            MaedError: a shape that does not fit, more inputs than positions, or an index beside names.
            IndexError: on a CPU, an index that is no position's, as `nn.Embedding` has it.
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
