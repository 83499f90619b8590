"""Several optimizers behind the face of one: DeepSpeed takes a single `torch.optim.Optimizer`."""

from collections.abc import Callable, Sequence
from typing import Any

import torch


class CombinedOptimizer(torch.optim.Optimizer):
    """Steps `parts` in order; no parameter may be in two of them.

    `param_groups` holds the very dictionaries of the parts and `state` is the one they all write to. So a learning rate set here
    reaches the part, and `state_dict` and `load_state_dict` are torch's own, as for a single optimizer.
    """

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = list(parts)
        super().__init__([group for part in self.parts for group in part.param_groups], {})
        self._hand_down()

    def _hand_down(self) -> None:
        """Give every part its share of this optimizer's groups, and its state."""
        end = 0
        for part in self.parts:
            start, end = end, end + len(part.param_groups)
            part.param_groups, part.state = self.param_groups[start:end], self.state

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        # Loading puts new dictionaries in the place of the groups and of the state.
        self._hand_down()
