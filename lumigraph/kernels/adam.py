"""Adam optimizer (Kingma and Ba 2015) over whole tensors.

Compiled for float32 on the CPU and CUDA; plain torch for other dtypes and devices.
"""

import ctypes
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lumigraph.kernels import cuda
from lumigraph.kernels.native import native
from lumigraph.kernels.operations import check_tensor, has_compiled_kernel, launch, register_operation


class AdamStep(ctypes.Structure):
    """`struct AdamStep` of csrc/sample.h."""

    _fields_ = [
        ("learning_rate", ctypes.c_float),
        ("inv_sqrt_correction2", ctypes.c_float),
        ("beta1", ctypes.c_float),
        ("beta2", ctypes.c_float),
        ("epsilon", ctypes.c_float),
    ]


class Adam:
    """Adam with the first and second moments of a list of parameters.

    Elements whose gradient has always been zero do not move. Most of a hash table is such.
    """

    def __init__(self, parameters: Sequence[Tensor], beta1: float = 0.9, beta2: float = 0.99, epsilon: float = 1e-15):
        self.parameters, self.step_count = list(parameters), 0
        self.m = [torch.zeros_like(p, requires_grad=False) for p in self.parameters]
        self.v = [torch.zeros_like(p, requires_grad=False) for p in self.parameters]
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon

    @torch.no_grad()
    def step(self, learning_rates: Sequence[float]) -> None:
        """Update each parameter from its gradient with its own learning rate, then set the gradients to zero."""
        self.step_count += 1
        for p, m, v, rate in zip(self.parameters, self.m, self.v, learning_rates, strict=True):
            assert p.grad is not None
            if has_compiled_kernel(p):
                _adam(p.detach(), p.grad, m, v, rate, self.beta1, self.beta2, self.epsilon, self.step_count)
            else:
                m.lerp_(p.grad, 1 - self.beta1)
                v.lerp_(p.grad * p.grad, 1 - self.beta2)
                denominator = (v / (1 - self.beta2**self.step_count)).sqrt_().add_(self.epsilon)
                p.addcdiv_(m, denominator, value=-rate / (1 - self.beta1**self.step_count))
                p.grad.zero_()


# ---- torch operation


def _adam_cuda(
    p: Tensor, g: Tensor, m: Tensor, v: Tensor, rate: float, beta1: float, beta2: float, epsilon: float, step: int
) -> None:
    for name, x in (("parameter", p), ("gradient", g), ("m", m), ("v", v)):
        check_tensor(name, x, tuple(p.shape), p)
    bias_corrections = rate / (1 - beta1**step), 1 / math.sqrt(1 - beta2**step)
    settings = AdamStep(*bias_corrections, beta1, beta2, epsilon)
    if n := p.numel():
        launch(p, "adam_step", -(-n // cuda.THREADS_PER_BLOCK), n, p, g, m, v, settings)


_adam = register_operation(
    "adam(Tensor(a!) p, Tensor(b!) g, Tensor(c!) m, Tensor(d!) v, float rate, float beta1, float beta2, float epsilon, "
    "int step) -> ()",
    native.adam,
    _adam_cuda,
)
