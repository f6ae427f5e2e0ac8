"""The surrogate pi: an LSTM that reads an architecture layer by layer and predicts its score.

Source: MFAS section 3.2 asks for a recurrent model over the variable-length description; what it is made of is open,
docs/decisions/0006-surrogate.md. Each index is embedded, since the numbers of features and activations have no order.

Shapes: N architectures, L layers of the deepest, I indices a layer (modalities + activation), E embedding, H hidden.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mfas_optuna.space import Architecture, SearchSpace
from mfas_optuna.threads import one_thread

EMBEDDING = 8
HIDDEN = 64
EPOCHS = 60
LEARNING_RATE = 1e-2


class Surrogate(nn.Module):
    """Predicts scores of architectures of any depth; starts from weights drawn with its own seed."""

    def __init__(self, space: SearchSpace, *, seed: int, bounded: bool) -> None:
        """Build the network.

        Args:
            space: The space whose architectures are read.
            seed: Seed of the initial weights.
            bounded: Whether predictions are accuracies within [0, 1] (a sigmoid ends the network) or any number.
        """
        super().__init__()
        self._bounded = bounded
        with torch.random.fork_rng(devices=[]):  # These draw from the global generator; their draws are not used.
            self._embeddings = nn.ModuleList(nn.Embedding(radix, EMBEDDING) for radix in space.layer_radices)
            self._lstm = nn.LSTM(EMBEDDING * len(space.layer_radices), HIDDEN, batch_first=True)
            self._head = nn.Linear(HIDDEN, 1)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if "bias" in name:
                    parameter.zero_()
                elif "embeddings" in name:
                    parameter.normal_(generator=generator)
                else:
                    bound = parameter.shape[-1] ** -0.5
                    parameter.uniform_(-bound, bound, generator=generator)

    def forward(self, tokens_NLI: Tensor, depths_N: Tensor) -> Tensor:
        """Return one prediction an architecture, (N,); rows of `tokens_NLI` beyond the depth are ignored."""
        embedded = [embedding(tokens_NLI[:, :, i]) for i, embedding in enumerate(self._embeddings)]
        outputs_NLH, _ = self._lstm(torch.cat(embedded, dim=2))
        last_NH = outputs_NLH[torch.arange(len(depths_N)), depths_N - 1]
        logits_N: Tensor = self._head(last_NH).squeeze(1)
        return logits_N.sigmoid() if self._bounded else logits_N

    def update(self, architectures: Sequence[Architecture], scores_N: NDArray[np.float64]) -> None:
        """Fit the network further to the given scores by squared error, all in one batch (line 16 and 26)."""
        tokens_NLI, depths_N = _tokens(architectures)
        targets_N = torch.as_tensor(scores_N, dtype=torch.float32)
        optimizer = torch.optim.Adam(self.parameters(), lr=LEARNING_RATE)
        with one_thread():
            for _ in range(EPOCHS):
                optimizer.zero_grad(set_to_none=True)
                loss = (self(tokens_NLI, depths_N) - targets_N).square().mean()
                loss.backward()
                optimizer.step()

    @torch.inference_mode()
    def predict(self, architectures: Sequence[Architecture]) -> NDArray[np.float64]:
        """Return the predicted score of every architecture, (N,), in one call (line 19)."""
        with one_thread():
            scores_N: NDArray[np.float64] = self(*_tokens(architectures)).double().numpy()
        return scores_N


def _tokens(architectures: Sequence[Architecture]) -> tuple[Tensor, Tensor]:
    deepest = max(architecture.depth for architecture in architectures)
    n_indices = len(architectures[0].layers[0].features) + 1
    tokens_NLI = np.zeros((len(architectures), deepest, n_indices), dtype=np.int64)
    for row, architecture in zip(tokens_NLI, architectures, strict=True):
        row[: architecture.depth] = [(*layer.features, layer.activation) for layer in architecture.layers]
    depths_N = np.array([architecture.depth for architecture in architectures])
    return torch.from_numpy(tokens_NLI), torch.from_numpy(depths_N)
