"""Whether a step of a pass waits for the device, in torch's own watch over synchronisations."""

from pathlib import Path

import torch

from eca_zoo.harness.accuracy import passes, run
from eca_zoo.harness.accuracy.evaluation import evaluate
from eca_zoo.harness.accuracy.settings import EvalSettings
from eca_zoo.harness.data.batches import Batch
from eca_zoo.harness.data.data_spec import DataSpec
from eca_zoo.harness.data.preprocess import PreprocessMode
from eca_zoo.harness.networks.model_spec import ModelSpec


class _WatchedPass(passes.Pass):
    """A pass whose steps fail where they wait for the device; the first ones make what the later ones use."""

    steps = 0

    def _step(self, batch: Batch) -> None:
        type(self).steps += 1
        torch.cuda.set_sync_debug_mode('error' if self.steps > 2 else 'default')
        try:
            super()._step(batch)
        finally:
            torch.cuda.set_sync_debug_mode('default')


def waits_of_a_step(device: torch.device, spec: ModelSpec, data: Path, preprocess: PreprocessMode) -> str:
    """Evaluate a model on a folder under the watch; says how many steps were watched.

    Raises:
        AssertionError: a step waited.
    """
    original, run.Pass, _WatchedPass.steps = run.Pass, _WatchedPass, 0
    try:
        settings = EvalSettings(device=str(device), batch_size=16, preprocess=preprocess)
        [result] = evaluate([spec], DataSpec(root=data), settings)
    finally:
        run.Pass = original
    assert result.error is None, result.error
    return f'{_WatchedPass.steps - 2} steps, none waited'
