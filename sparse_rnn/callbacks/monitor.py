"""Shows, while a network trains, which connections are left and what the temporal Jacobian does."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sparse_rnn.callbacks import tensorboard
from sparse_rnn.callbacks.finding import current_masks
from sparse_rnn.callbacks.run_description import describe_fits_only, describe_run
from sparse_rnn.calls import as_called
from sparse_rnn.checks import check_flag, check_whole
from sparse_rnn.lightning_compat import join_other_name, logged_step, only_accumulates
from sparse_rnn.recurrent.finding import describable_modules
from sparse_rnn.recurrent.layers import RecurrentLayer, named_layers
from sparse_rnn.recurrent.spectrum import Spectrum, spectrum, unrolled_layers
from sparse_rnn.recurrent.unroll import Unrolled
from sparse_rnn.sparsity.connections import connections
from sparse_rnn.sparsity.masks import Masks
from sparse_rnn.sparsity.statistics import statistics

# As many units as `num_samples` is meant for: the time of singular values grows with the cube of the units.
UNITS = 400


class SparsityMonitor(Callback):
    """Log what is left of the connections of every recurrent layer, and the spectrum of its temporal Jacobian.

    At the first step of a fit and at the end of every epoch (or every ``every_n_steps``), to every logger:

    - ``sparsity/<kernel>`` and ``sparsity/<kernel>/<gate>``: share of the weights removed;
    - ``connections/<layer>/input_to_recurrent``: number of input connections to one recurrent connection (I/R);
    - ``connections/<layer>/no_incoming``, ``.../no_outgoing``: number of units that neither the input nor a state
      reaches, and of those that reach no unit of the layer;
    - ``spectrum/<layer>/chi``: mean of (J·1)² over samples, units and the last four steps (Zhang and Stadie 2020,
      eq. 3); ``.../mean``, ``.../largest``, ``.../near_zero``: of the singular values of J = ∂h_t/∂h_{t-1} at the last
      step, the mean, the largest, and the share below 0.01.

    A layer is called ``<module>.l<depth>``, with ``_reverse`` behind it where it reads the sequence backwards; a cell
    goes by the name of its module alone. Of kernels that no pruning callback has masks of, the weights that are not 0
    count as connections.

    TensorBoard shows the run in its HPARAMS tab (cell, criterion, hidden size, seed, sparsity, and what the model and
    the data saved as hyperparameters) against the metrics that the fit's ModelCheckpoint or EarlyStopping watches, and
    groups the curves in its CUSTOM SCALARS tab.

    The spectrum is that of the training batch at hand, with the weights after its step: nothing is run twice, nothing
    is drawn, and a run is bit for bit the run without the monitor. A module that is called several times in a step
    counts by its last call. With several ranks, the first one logs its own.

    Args:
        every_n_steps: Number of training steps from one time to the next; null for the ends of epochs.
        num_samples: Number of samples of the batch whose singular values to compute, for layers of up to 400 units;
            the time of one grows with the cube of the units, so larger layers take fewer, at least one.
        histograms: Whether TensorBoard gets histograms of the singular values and of each gate's remaining weights.
        connection_map: Whether TensorBoard, and loggers with a ``log_image`` such as ``WandbLogger``, get an image of
            the remaining connections, output unit by gate (across) against input and recurrent unit (down).
    """

    def __init__(
        self,
        every_n_steps: int | None = None,
        num_samples: int = 16,
        histograms: bool = False,
        connection_map: bool = False,
    ) -> None:
        check_whole("every_n_steps", every_n_steps, 1, optional=True, hint="for the ends of epochs")
        check_whole("num_samples", num_samples, 1)
        check_flag("histograms", histograms)
        check_flag("connection_map", connection_map)
        join_other_name(SparsityMonitor)
        self.every_n_steps = every_n_steps
        self.num_samples = num_samples
        self.histograms = histograms
        self.connection_map = connection_map
        self._logged: int | None = None
        self._calls: _LastCalls | None = None

    def __repr__(self) -> str:
        return as_called(type(self), vars(self))

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave runs without a fit undescribed."""
        describe_fits_only(trainer, stage)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Describe the run to TensorBoard."""
        self._logged = None
        if trainer.is_global_zero and trainer.loggers:
            describe_run(trainer, pl_module)
            tensorboard.group_curves(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Listen to the recurrent modules where numbers are due."""
        if self._is_due(trainer):
            self._calls = _LastCalls(pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the numbers that are due."""
        calls = self._stop_listening()
        if calls is not None:
            self._log(trainer, pl_module, calls)
            self._logged = logged_step(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stop listening."""
        self._stop_listening()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stop listening."""
        self._stop_listening()

    def _is_due(self, trainer: Trainer) -> bool:
        if not (trainer.is_global_zero and trainer.loggers) or logged_step(trainer) == self._logged:
            return False
        if only_accumulates(trainer):
            return False  # the weights change with the last of the accumulated batches
        if self.every_n_steps is not None:
            return logged_step(trainer) % self.every_n_steps == 0
        is_last_step = trainer.global_step + len(trainer.optimizers) == trainer.max_steps
        return self._logged is None or trainer.is_last_batch or is_last_step

    def _stop_listening(self) -> _LastCalls | None:
        calls, self._calls = self._calls, None
        if calls is not None:
            calls.close()
        return calls

    @torch.no_grad()
    def _log(self, trainer: Trainer, pl_module: LightningModule, calls: _LastCalls) -> None:
        masks = current_masks(trainer)
        spectra = self._spectra(calls)
        scalars = {**_connection_scalars(pl_module, masks), **_spectrum_scalars(spectra)}
        for logger in trainer.loggers:
            logger.log_metrics(scalars, step=logged_step(trainer))
        layers = named_layers(describable_modules(pl_module))
        for board in tensorboard.boards(trainer) if self.histograms else ():
            tensorboard.add_spectra(board, spectra, logged_step(trainer))
            tensorboard.add_remaining_weights(board, layers.values(), masks, logged_step(trainer))
        if self.connection_map:
            tensorboard.add_maps(trainer, layers, masks, logged_step(trainer))

    def _spectra(self, calls: _LastCalls) -> dict[str, Spectrum]:
        try:
            return {
                layer: spectrum(unrolled, self._samples(unrolled.layer)) for layer, unrolled in calls.unrolled().items()
            }
        except (RuntimeError, ValueError) as error:  # what cannot be seen is no reason to stop a training
            rank_zero_warn(f"SparsityMonitor logs no spectrum: {error}")
            return {}

    def _samples(self, layer: RecurrentLayer) -> int:
        affordable = int(self.num_samples * (UNITS / layer.state_sizes[0]) ** 3)
        return max(1, min(self.num_samples, affordable))


class _LastCalls:
    """Notes what each recurrent module of a model is called with last, until it is closed.

    Modules whose temporal Jacobian is not known, because more than their kernels mixes units, are left out.
    """

    def __init__(self, model: nn.Module) -> None:
        found = [found for found in describable_modules(model) if found.layers[0][0].cell.elementwise]
        self._found = {recurrent.module: recurrent for recurrent in found}
        self._arguments: dict[nn.Module, tuple[Any, Any]] = {}
        self._handles: list[RemovableHandle] = [
            module.register_forward_pre_hook(self._note, with_kwargs=True) for module in self._found
        ]

    def close(self) -> None:
        """Stop noting."""
        for handle in self._handles:
            handle.remove()

    def unrolled(self) -> dict[str, Unrolled]:
        """Make the calls again, and return the layers as they ran."""
        called = [self._found[module] for module in self._arguments]
        layers = unrolled_layers(nn.ModuleList(self._arguments), None, self._call_again, called)
        return {layer: calls[-1] for layer, calls in layers.items()}

    def _note(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self._arguments[module] = args, kwargs

    def _call_again(self, model: nn.Module, batch: None) -> Tensor:
        for module, (args, kwargs) in self._arguments.items():
            module(*args, **kwargs)
        return torch.empty(0)


def _connection_scalars(model: nn.Module, masks: dict[str, Tensor]) -> dict[str, float]:
    kept = {
        name: masks[name] if name in masks else layer.parameters[role] != 0
        for layer in named_layers(describable_modules(model)).values()
        for role, name in layer.kernels.items()
    }
    kept |= masks  # other weights than recurrent kernels may be pruned too
    gates = statistics(Masks(kept, model))
    scalars = {f"sparsity/{name}": 1 - mask.float().mean().item() for name, mask in kept.items()}
    scalars |= {f"sparsity/{gate.kernel}/{gate.gate}": gate.sparsity for gate in gates}
    for layer, found in connections(model, masks).items():
        scalars |= {
            f"connections/{layer}/input_to_recurrent": found.ratio,
            f"connections/{layer}/no_incoming": found.no_incoming,
            f"connections/{layer}/no_outgoing": found.no_outgoing,
        }
    return scalars


def _spectrum_scalars(spectra: dict[str, Spectrum]) -> dict[str, float]:
    return {
        f"spectrum/{layer}/{name}": getattr(found, name)
        for layer, found in spectra.items()
        for name in ("chi", "mean", "largest", "near_zero")
    }


join_other_name(SparsityMonitor)  # for pytorch_lightning's command line, which asks for the class first
