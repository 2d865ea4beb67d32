"""Several processes that train one detector, as torchrun starts them.

torchrun --nproc-per-node 2 --no-python ganomaly-stream train --kind image --data normal.npz --name images

Every process draws the same records and makes the same views of them, then takes its share; gradients are averaged, so
that the weights stay the same everywhere. What can differ from one process is batch normalisation, whose statistics are
those of a share.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Workers:
    """This process among those that train together; by itself unless told otherwise."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that decides, reports and saves."""
        return self.rank == 0

    def share(self, records: Tensor) -> Tensor:
        """Of the records `[B, …]` of a step, those of this process: `[B / size, …]`."""
        return records[self.rank :: self.size]

    def whole(self, batch: int) -> int:
        """The largest batch up to `batch` whose halves are shared out evenly; at least two records a process."""
        unit = 2 * self.size
        return max(batch // unit, 1) * unit

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replaces gradients by their mean over the processes."""
        self._average([weight.grad for weight in parameters if weight.grad is not None])

    def average_statistics(self, network: nn.Module) -> None:
        """Replaces what batch normalisation has counted by its mean over the processes."""
        norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        self._average([part for norm in norms for part in (norm.running_mean, norm.running_var) if part is not None])

    def average(self, values: dict[str, float]) -> dict[str, float]:
        """Mean over the processes, by name; every process has the same names."""
        if self.size == 1:
            return values
        mean = torch.tensor(list(values.values()), dtype=torch.float64)
        everywhere: list[list[float]] = [[] for _ in range(self.size)]
        distributed.all_gather_object(everywhere, mean.tolist())
        return dict(zip(values, torch.tensor(everywhere, dtype=torch.float64).mean(dim=0).tolist(), strict=True))

    def gather(self, rows: Tensor) -> Tensor:
        """Rows `[B, D]` of all processes: `[size · B, D]`. For a loss over all of them that each process computes.

        A process has the gradient of its own rows alone. It is made `size` times as large, so that the mean over the
        processes is the gradient of the loss.
        """
        if self.size == 1:
            return rows
        parts = [torch.empty_like(rows) for _ in range(self.size)]
        distributed.all_gather(parts, rows.detach().contiguous())
        parts[self.rank] = rows * self.size - rows.detach() * (self.size - 1)
        return torch.cat(parts)

    def agree(self, value: T) -> T:
        """What the first process says."""
        if self.size == 1:
            return value
        said = [value]
        distributed.broadcast_object_list(said, src=0)
        return said[0]

    def _average(self, tensors: list[Tensor]) -> None:
        if self.size == 1 or not tensors:
            return
        # One message: small networks would spend most of their time on the many.
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        distributed.all_reduce(flat)
        flat /= self.size
        for tensor, mean in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(mean.view_as(tensor))


ALONE = Workers()


def launched_rank() -> int:
    """Of this process, as torchrun numbers them; 0 without it."""
    return int(os.environ.get("RANK", "0"))


def own_device(name: str) -> str:
    """With several processes on a machine, `auto` and `cuda` are one GPU each, where there are any."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and name in ("auto", "cuda") and torch.cuda.is_available():
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return name


@contextmanager
def joined(device: torch.device) -> Iterator[Workers]:
    """The processes that torchrun started, connected by NCCL on CUDA and by Gloo elsewhere; without it, this one."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Workers(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()
