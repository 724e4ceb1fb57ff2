"""Several processes that work as one, launched by torchrun (chapter 13).

The engine is `torch.distributed`; here stands what QAConv needs of it. Started alone, a process
counts as one of one, and everything below does nothing: nothing else in the library asks how many
there are.

    torchrun --nproc-per-node 4 -m qaconv_lib train qaconv mini-market
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel


def connect(device: str | torch.device | None = None) -> torch.device | None:
    """Join the other processes if torchrun has started several; else do nothing.

    Args:
        device: "cpu", "cuda" or None for a GPU where there is one. Every process of a machine takes
            a GPU of its own.

    Returns:
        The device of this process; None where none was named and there is nobody to join.

    Raises:
        ValueError: more processes on this machine than GPUs.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return None if device is None else torch.device(device)
    on_gpu = torch.cuda.is_available() if device is None else torch.device(device).type == "cuda"
    chosen = torch.device("cpu")
    if on_gpu:
        place = int(os.environ["LOCAL_RANK"])
        if place >= torch.cuda.device_count():
            raise ValueError(
                f"{place + 1} or more processes on a machine with {torch.cuda.device_count()} "
                "GPUs; lower --nproc-per-node"
            )
        chosen = torch.device("cuda", place)
        torch.cuda.set_device(chosen)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if on_gpu else "gloo", timeout=timedelta(minutes=10))
    return chosen


def disconnect() -> None:
    """Leave the group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def process_count() -> int:
    """How many processes work together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def process_rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def share(count: int) -> slice:
    """The part of `count` things that this process does: shares follow each other in rank order."""
    rank, processes = process_rank(), process_count()
    return slice(count * rank // processes, count * (rank + 1) // processes)


@contextmanager
def naming_lost_processes() -> Iterator[None]:
    """Turn the error of a broken connection into a ChildProcessError that says what to do."""
    try:
        yield
    except RuntimeError as error:  # DistBackendError is one
        text = str(error)
        signs = ("onnection", "Broken pipe", "NCCL", "imed out", "imeout")
        if process_count() > 1 and any(sign in text for sign in signs):
            raise ChildProcessError(
                "another process is gone or does not answer; what was saved after the last epoch "
                f"is kept, start all processes again to go on from there ({text.splitlines()[0]})"
            ) from error
        raise


def gather(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Each tensor with those of all processes, joined along its first axis in rank order.

    No gradient passes. Lengths may differ from process to process, other sizes may not.

    Raises:
        ChildProcessError: another process is gone.
    """
    if process_count() == 1:
        return tensors
    with naming_lost_processes():
        return tuple(_gather_one(tensor.detach()) for tensor in tensors)


def _gather_one(tensor: Tensor) -> Tensor:
    home = tensor.device
    if dist.get_backend() == "nccl":  # which carries nothing but what lies on a GPU
        tensor = tensor.cuda()
    lengths = [
        torch.zeros(1, dtype=torch.long, device=tensor.device) for _ in range(process_count())
    ]
    dist.all_gather(lengths, torch.tensor([len(tensor)], device=tensor.device))
    longest = int(max(lengths))
    padded = tensor.new_zeros(longest, *tensor.shape[1:])
    padded[: len(tensor)] = tensor
    parts = [torch.empty_like(padded) for _ in lengths]
    dist.all_gather(parts, padded)
    found = [part[: int(length)] for part, length in zip(parts, lengths, strict=True)]
    return torch.cat(found).to(home)


def add_up(*values: float) -> list[float]:
    """Sums of numbers over all processes."""
    if process_count() == 1:
        return list(values)
    return gather(torch.tensor([values], dtype=torch.float64))[0].sum(dim=0).tolist()


def barrier() -> None:
    """Wait until all processes are here."""
    add_up(0)


def synchronise_batch_norm(model: nn.Module) -> None:
    """Let every BN layer in training mode take its statistics over all processes.

    Gradients pass through the statistics. `torch.nn.SyncBatchNorm` does the same on GPUs only, and
    does not know BN layers that hold an activation, as timm's do.
    """
    if process_count() == 1:
        return
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.forward = functools.partial(_synchronised_forward, module)


def _synchronised_forward(bn: _BatchNorm, values: Tensor) -> Tensor:
    if not bn.training:
        return type(bn).forward(bn, values)
    axes = [axis for axis in range(values.dim()) if axis != 1]
    shape = [1, -1] + [1] * (values.dim() - 2)
    count = all_reduce(values.new_tensor(values.numel() / values.shape[1]))
    mean = all_reduce(values.sum(dim=axes)) / count
    centred = values - mean.view(shape)
    variance = all_reduce(centred.square().sum(dim=axes)) / count
    with torch.no_grad():
        bn.num_batches_tracked += 1
        bn.running_mean.lerp_(mean, bn.momentum)
        bn.running_var.lerp_(variance * count / (count - 1), bn.momentum)
    result = centred * (variance + bn.eps).rsqrt().view(shape)
    result = result * bn.weight.view(shape) + bn.bias.view(shape)
    return bn.act(bn.drop(result)) if hasattr(bn, "act") else result


def data_parallel(module: nn.Module) -> nn.Module:
    """A module whose gradients are averaged over all processes after every backward pass.

    Buffers are not sent round: BN statistics and the class memory are the same everywhere anyway.
    """
    if process_count() == 1:
        return module
    synchronise_batch_norm(module)
    # While the memory is empty the loss does not depend on the matcher: its parameters are unused.
    return DistributedDataParallel(module, broadcast_buffers=False, find_unused_parameters=True)
