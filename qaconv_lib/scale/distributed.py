"""Training and searching on several processes, launched by torchrun (appendix A).

    torchrun --nproc-per-node 4 -m qaconv_lib train qaconv mini-market

Started alone, a process counts as one of one, and everything here does nothing.
"""

from __future__ import annotations

import functools
import inspect
import os
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from qaconv_lib._processes import gather, process_count
from qaconv_lib.models import choose_device


def connect(device: str | torch.device | None = None) -> torch.device | None:
    """Join the other processes if torchrun has started several; else do nothing.

    `device` is "cpu", "cuda" or None for a GPU where there is one; every process of a machine takes
    a GPU of its own. Returns it; None where none was named and there are no others to join.
    """
    size = os.environ.get("WORLD_SIZE", "1")
    if not (size.isascii() and size.isdecimal()):
        raise ValueError(f"WORLD_SIZE must be a whole number, as torchrun sets it, got {size!r}")
    if int(size) <= 1:
        return None if device is None else choose_device(device)
    if device is not None and str(device).partition(":")[0] not in ("cpu", "cuda"):
        raise ValueError(f"device must be cpu or cuda, got {device!r}")
    on_gpu = torch.cuda.is_available() if device is None else str(device).startswith("cuda")
    chosen = torch.device("cpu")
    if on_gpu:
        place = int(os.environ.get("LOCAL_RANK", "0"))
        if not torch.cuda.is_available():
            raise ValueError("this machine has no GPU; use --device cpu")
        if place >= torch.cuda.device_count():
            fewer = f"more processes than the {torch.cuda.device_count()} GPUs of this machine"
            raise ValueError(f"{fewer}; lower --nproc-per-node")
        chosen = torch.device("cuda", place)
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=timedelta(minutes=10))
    return chosen


def disconnect() -> None:
    """Leave the group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _synchronise_batch_norm(model: nn.Module) -> None:
    """Let every BN layer in training mode take its statistics over all processes.

    Gradients pass through the statistics. `torch.nn.SyncBatchNorm` does the same on GPUs only, and
    does not know BN layers that hold an activation, as timm's do.
    """
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            # Of this layer alone, whatever its class.
            module.forward = functools.partial(_synchronised_forward, module)  # type: ignore


def _synchronised_forward(bn: Any, values: Tensor) -> Tensor:  # timm's have drop and act too
    if not bn.training:
        return type(bn).forward(bn, values)
    exact = values.to(bn.weight.dtype)  # statistics are not taken in half precision
    normalised, mean, variance, count = _NormaliseTogether.apply(exact, bn.eps)
    with torch.no_grad():
        bn.num_batches_tracked += 1
        bn.running_mean.lerp_(mean, bn.momentum)
        bn.running_var.lerp_(variance * (count / (count - 1)), bn.momentum)
    shape = [1, -1] + [1] * (values.dim() - 2)
    result = normalised * bn.weight.view(shape) + bn.bias.view(shape)
    result = result.to(values.dtype)
    return bn.act(bn.drop(result)) if hasattr(bn, "act") else result


class _NormaliseTogether(torch.autograd.Function):
    """Zero mean and unit variance in each channel, over the values of all processes."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, eps: float) -> tuple[Tensor, ...]:
        axes = [axis for axis in range(values.dim()) if axis != 1]
        shape = [1, -1] + [1] * len(axes[1:])
        count = values.numel() // values.shape[1]
        variance, mean = torch.var_mean(values, dim=axes, correction=0)
        mine = torch.stack([mean, variance, torch.full_like(mean, count)]).double()
        everyone = gather(mine[None], same_length=True)[0]  # (processes, 3, channels)
        means, variances, counts = everyone.unbind(1)
        total = counts.sum(dim=0)
        mean = (counts * means).sum(dim=0) / total
        variance = (counts * (variances + (means - mean).square())).sum(dim=0) / total
        scale = (variance + eps).rsqrt().to(values.dtype).view(shape)
        normalised = (values - mean.to(values.dtype).view(shape)) * scale
        ctx.save_for_backward(normalised, scale)
        ctx.axes, ctx.total = axes, int(total[0])
        outputs = mean.to(values.dtype), variance.to(values.dtype), total.to(values.dtype)
        ctx.mark_non_differentiable(*outputs)
        return normalised, *outputs

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, None]:
        normalised, scale = ctx.saved_tensors
        products = (gradient * normalised).sum(dim=ctx.axes)
        mine = torch.stack([gradient.sum(dim=ctx.axes), products])
        first, second = gather(mine[None], same_length=True)[0].sum(dim=0) / ctx.total
        shape = scale.shape
        return (gradient - first.view(shape) - normalised * second.view(shape)) * scale, None


def data_parallel(module: nn.Module) -> nn.Module:
    """A module whose gradients are averaged over all processes after every backward pass.

    Buffers are not sent round: BN statistics and the class memory are the same everywhere anyway.
    """
    if process_count() == 1:
        return module
    _synchronise_batch_norm(module)
    # While the memory is empty the loss does not depend on the matcher: its parameters are unused.
    known = inspect.signature(DistributedDataParallel).parameters
    buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    options: dict[str, Any] = {"find_unused_parameters": True, buffers: False}
    return DistributedDataParallel(module, **options)
