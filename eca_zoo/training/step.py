"""One step: forward and backward over the parts, the exchange between processes, the update, the average."""

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from eca_zoo.harness.machine.devices import autocast
from eca_zoo.harness.machine.processes import Processes
from eca_zoo.training.data.order import seed_step
from eca_zoo.training.optimisation import clip_gradients
from eca_zoo.training.recipes.recipe import Recipe
from eca_zoo.training.tasks.task import Task


class Stepper:
    """Makes the steps of a training.

    Attributes:
        scaler: of the loss, with autocast to float16.
        ema: the averaged network; None where the recipe asks for none.
    """

    def __init__(
        self,
        task: Task,
        optimizer: torch.optim.Optimizer,
        recipe: Recipe,
        device: torch.device,
        processes: Processes | None = None,
    ) -> None:
        """Wrap the task's network where there are several processes."""
        self._task, self._optimizer, self._recipe, self._device = task, optimizer, recipe, device
        self._processes = processes or Processes()
        self._precision = ('amp' if recipe.amp_dtype == 'float16' else 'amp_bf16') if recipe.amp else 'fp32'
        self.scaler = torch.amp.GradScaler(device.type, enabled=self._precision == 'amp')
        self.ema = (
            ModelEmaV3(task.network, decay=recipe.model_ema_decay, use_warmup=recipe.model_ema_warmup)
            if recipe.model_ema
            else None
        )
        self._network: nn.Module = task.network
        if self._processes.world_size > 1:
            # Searching for unused parameters keeps the buckets as they were made: torch would arrange them anew after
            # the first step, and a run that is continued would add gradients in another order than one that is not.
            self._network = DistributedDataParallel(
                task.network,
                device_ids=[device] if device.type == 'cuda' else None,
                process_group=task.group,
                find_unused_parameters=True,
            )

    def step(self, step: int, epoch: int, parts: Sequence[Any], weights: Sequence[float]) -> torch.Tensor:
        """Do ``step`` (from 0) on this process's ``parts`` of it; returns their part of the mean loss, on the device.

        Args:
            step: number of the step in the run.
            epoch: number of the epoch.
            parts: what the task's reader made.
            weights: of the mean loss of each part in that of the step.
        """
        total = torch.zeros((), dtype=torch.float64, device=self._device)
        for number, (part, weight) in enumerate(zip(parts, weights, strict=True)):
            seed_step(self._recipe.seed, step, self._processes.rank, number, self._device)
            is_last = number == len(parts) - 1
            with contextlib.nullcontext() if is_last else self._without_exchange():
                with autocast(self._precision, self._device):
                    loss = self._task.loss(self._network, part, epoch)
                # The exchange takes the mean over the processes, and the sum of what they weigh is meant.
                self.scaler.scale(loss * (weight * self._processes.world_size)).backward()
            total += loss.detach().double() * weight
        self._update(step)
        return total

    def _without_exchange(self) -> contextlib.AbstractContextManager:
        network = self._network
        return network.no_sync() if isinstance(network, DistributedDataParallel) else contextlib.nullcontext()

    def _update(self, step: int) -> None:
        if self._recipe.clip_grad is not None:
            self.scaler.unscale_(self._optimizer)
            clip_gradients(self._task.network, self._recipe)
        self.scaler.step(self._optimizer)
        self.scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update(self._task.network, step=step + 1)
