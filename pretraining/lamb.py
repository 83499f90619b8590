"""LAMB with a bounded trust ratio: the one optimizer here that no library has on both CPU and CUDA.

DeepSpeed's FusedLamb, which academic-budget-bert used, has the bounds but is a CUDA extension only, and corrects the bias outside the
trust ratio, of weight decay too; timm's and apex's have no lower bound and no upper bound but 1; pytorch-optimizer's has no bias
correction and caps the weights' norm at 10. Known limit: the parameters of a group are on one device.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn


class Lamb(torch.optim.Optimizer):
    """You et al. 2020, arXiv 1904.00962, algorithm 2. For the gradient g of each parameter tensor w at its t-th step:

        m = β1·m + (1 - β1)·g,    v = β2·v + (1 - β2)·g²
        u = m̂ / (√v̂ + ε) + λ·w,  with m̂ = m/(1 - β1^t), v̂ = v/(1 - β2^t) under `bias_correction`, else m̂ = m, v̂ = v
        w = w - lr·c·u,           with c = ‖w‖/‖u‖ clamped to [`min_coeff`, `max_coeff`], and c = 1 where either norm is 0

    The paper bounds ‖w‖ (its φ); the bounds on the ratio are those of DeepSpeed's FusedLamb, whose defaults the flags carry.
    The device is never waited for: norms and ratios stay on it.
    """

    def __init__(
        self, params: Iterable[nn.Parameter] | Iterable[dict[str, Any]], lr: float, betas: tuple[float, float], eps: float,
        weight_decay: float, bias_correction: bool, min_coeff: float, max_coeff: float,
    ) -> None:
        super().__init__(params, {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "bias_correction": bias_correction,
            "min_coeff": min_coeff, "max_coeff": max_coeff,
        })

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if weights:
                updates = self._updates(weights, group)
                torch._foreach_mul_(updates, _trust_ratios(weights, updates, group))
                torch._foreach_add_(weights, updates, alpha=-group["lr"])
        return loss

    def _updates(self, weights: list[nn.Parameter], group: dict[str, Any]) -> list[torch.Tensor]:
        """u of every weight, after moving its m, v and t on."""
        states = [self._advanced(weight) for weight in weights]
        gradients = [weight.grad for weight in weights]
        first, second = [state["exp_avg"] for state in states], [state["exp_avg_sq"] for state in states]
        beta1, beta2 = group["betas"]
        torch._foreach_mul_(first, beta1)
        torch._foreach_add_(first, gradients, alpha=1 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, gradients, gradients, value=1 - beta2)
        denominators = torch._foreach_sqrt(second)
        if group["bias_correction"]:
            torch._foreach_div_(denominators, [(1 - beta2 ** state["step"]) ** 0.5 for state in states])
        torch._foreach_add_(denominators, group["eps"])
        updates = torch._foreach_div(first, denominators)
        if group["bias_correction"]:
            torch._foreach_div_(updates, [1 - beta1 ** state["step"] for state in states])
        if group["weight_decay"]:
            torch._foreach_add_(updates, weights, alpha=group["weight_decay"])
        return updates

    def _advanced(self, weight: nn.Parameter) -> dict[str, Any]:
        state = self.state[weight]
        if not state:
            state.update(step=0, exp_avg=torch.zeros_like(weight), exp_avg_sq=torch.zeros_like(weight))
        state["step"] += 1
        return state


def _trust_ratios(weights: list[nn.Parameter], updates: list[torch.Tensor], group: dict[str, Any]) -> list[torch.Tensor]:
    """c of every weight, as tensors without dimensions."""
    weight_norms, update_norms = (torch.stack(torch._foreach_norm(tensors)) for tensors in (weights, updates))
    ratios = (weight_norms / update_norms).clamp(group["min_coeff"], group["max_coeff"])
    return list(torch.where((weight_norms > 0) & (update_norms > 0), ratios, 1.0).unbind())
