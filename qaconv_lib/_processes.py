"""What one of several processes needs to know: its rank, its share, and what the others have.

`scale.distributed` joins them. Started alone, a process counts as one of one.
"""

from __future__ import annotations

import sys

import torch
import torch.distributed as dist
from torch import Tensor


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


def gather(*tensors: Tensor, same_length: bool = False) -> tuple[Tensor, ...]:
    """Each tensor with those of all processes, joined along its first axis in rank order.

    No gradient passes. Lengths may differ from process to process, other sizes may not; with
    `same_length` they do not either, which saves a message.
    """
    if process_count() == 1:
        return tensors
    return tuple(_gather_one(tensor.detach(), same_length) for tensor in tensors)


def _gather_one(tensor: Tensor, same_length: bool) -> Tensor:
    home, length = tensor.device, len(tensor)
    if dist.get_backend() == "nccl":  # carries only what is on a GPU
        tensor = tensor.cuda()
    if same_length:
        return torch.cat(_all_gather(tensor.contiguous())).to(home)
    lengths = _all_gather(torch.tensor(length, device=tensor.device))
    padded = tensor.new_zeros(int(max(lengths)), *tensor.shape[1:])
    padded[:length] = tensor
    parts = zip(_all_gather(padded), lengths, strict=True)
    return torch.cat([part[:length] for part, length in parts]).to(home)


def _all_gather(tensor: Tensor) -> list[Tensor]:
    parts = [torch.empty_like(tensor) for _ in range(process_count())]
    dist.all_gather(parts, tensor)
    return parts


def add_up(*values: float) -> list[float]:
    """Sums of numbers over all processes."""
    if process_count() == 1:
        return list(values)
    mine = torch.tensor([values], dtype=torch.float64)
    return gather(mine, same_length=True)[0].sum(dim=0).tolist()


def barrier() -> None:
    """Wait until all processes are here."""
    add_up(0)


def peak_megabytes(device: str) -> int | None:
    """Most memory this process has held so far, in MB: on a GPU, or with its libraries on the CPU.

    None where the system does not tell.
    """
    if not device.startswith("cpu"):
        return round(torch.cuda.max_memory_allocated(device) / 1e6)
    try:
        import resource  # not on Windows
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6)
