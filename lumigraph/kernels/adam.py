"""Adam (Kingma and Ba 2015) over whole tensors: compiled for float32 on the CPU, plain torch elsewhere."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .hashgrid import compiled
from .native import native


class Adam:
    """Moments of some parameters. Where nothing was ever learned, as in most of a hash table, nothing moves."""

    def __init__(self, parameters: Sequence[Tensor], beta1: float = 0.9, beta2: float = 0.99, epsilon: float = 1e-15):
        self.parameters, self.taken = list(parameters), 0
        self.m = [torch.zeros_like(p, requires_grad=False) for p in self.parameters]
        self.v = [torch.zeros_like(p, requires_grad=False) for p in self.parameters]
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon

    @torch.no_grad()
    def step(self, rates: Sequence[float]) -> None:
        """One step with the parameters' gradients, each with its learning rate; they are zero afterwards, to be added
        to."""
        self.taken += 1
        for p, m, v, rate in zip(self.parameters, self.m, self.v, rates, strict=True):
            assert p.grad is not None
            if compiled(p):
                settings = (rate, self.beta1, self.beta2, self.epsilon, self.taken)
                native.adam(p.detach(), p.grad, m, v, *settings)
            else:
                m.lerp_(p.grad, 1 - self.beta1)
                v.lerp_(p.grad * p.grad, 1 - self.beta2)
                size = (v / (1 - self.beta2**self.taken)).sqrt_().add_(self.epsilon)
                p.addcdiv_(m, size, value=-rate / (1 - self.beta1**self.taken))
                p.grad.zero_()
