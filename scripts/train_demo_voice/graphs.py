"""Whole training steps as CUDA graphs: at these sizes launching kernels, not computing, is the cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Step = Callable[[], dict[str, Tensor]]


def capture(step: Step, warm_up: int = 3) -> Step:
    """`step` as one graph launch; it must take all its inputs from tensors that stay where they are.

    Runs `step` `warm_up` times first. Without CUDA `step` itself comes back.
    """
    if not torch.cuda.is_available():
        return step
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(warm_up):
            step()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # NCCL's own thread may call CUDA meanwhile
        out = step()

    def replay() -> dict[str, Tensor]:
        graph.replay()
        return out

    return replay


_lanes: list[torch.cuda.Stream] = []


def beside(x: Tensor, branches: Sequence[Callable[[Tensor], list[Tensor]]], *also: Tensor) -> list[list[Tensor]]:
    """What each of `branches` makes of `x`. On CUDA they run side by side, each in a stream of its own: none of
    them fills the device alone. The backward pass follows the streams of the forward pass.

    `also` are other tensors that the branches read: their memory must not be given away meanwhile.
    """
    if not x.is_cuda:
        return [branch(x) for branch in branches]
    while len(_lanes) < len(branches):
        _lanes.append(torch.cuda.Stream())
    here = torch.cuda.current_stream()
    made = []
    for lane, branch in zip(_lanes, branches, strict=False):
        lane.wait_stream(here)
        for tensor in (x, *also):
            tensor.record_stream(lane)
        with torch.cuda.stream(lane):
            made.append(branch(x))
    for lane, out in zip(_lanes, made, strict=False):
        here.wait_stream(lane)
        for tensor in out:
            tensor.record_stream(here)
    return made


def optimiser(
    parameters: list[nn.Parameter], rate: Tensor, betas: tuple[float, float], decay: float
) -> torch.optim.AdamW:
    """AdamW whose step fits into a graph; `rate` is a device scalar that the caller rewrites between steps."""
    cuda = rate.is_cuda
    return torch.optim.AdamW(parameters, rate, betas, weight_decay=decay, fused=cuda, capturable=cuda)


class Average:
    """Exponential moving average of a module's parameters."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.names = [n for n, _ in module.named_parameters()]
        self.source = [p.data for p in module.parameters()]
        self.value = [p.detach().clone() for p in module.parameters()]

    def update(self) -> None:
        torch._foreach_lerp_(self.value, self.source, 1 - self.decay)  # pyright: ignore[reportPrivateImportUsage]

    def restart(self) -> None:
        """Forget: begin again at the present weights."""
        torch._foreach_copy_(self.value, self.source)  # pyright: ignore[reportPrivateImportUsage]

    def state(self) -> dict[str, Tensor]:
        return dict(zip(self.names, self.value, strict=True))
