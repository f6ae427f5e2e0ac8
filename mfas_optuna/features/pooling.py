"""Global pooling along the channels."""

from __future__ import annotations

from torch import Tensor

from mfas_optuna.errors import TapError


def pool(output: Tensor, channel_axis: int = 1) -> Tensor:
    """Return one value a channel: the mean over all positions; outputs of linear layers are left as they are.

    Source: MFAS section 3.2, "Handling arbitrary tensor dimensions".

    Args:
        output: (batch, channels) or a tensor of any higher rank whose first axis is the batch.
        channel_axis: Which axis holds the channels; -1 for transformers.

    Returns:
        A tensor (batch, channels).

    Raises:
        TapError: The output has no channels, or the axis is the batch's or does not exist.
    """
    rank = output.ndim
    axis = channel_axis + rank if channel_axis < 0 else channel_axis
    if rank < 2 or not 1 <= axis < rank:
        raise TapError(
            f"Expected an output with the batch first and channels on axis {channel_axis}, found shape "
            f"{tuple(output.shape)}. Set the tap's channel_axis."
        )
    positions = [other for other in range(1, rank) if other != axis]
    return output.mean(dim=positions) if positions else output
