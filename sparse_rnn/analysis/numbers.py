"""All numbers of a checkpoint that its figures and tables show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from sparse_rnn.analysis.curves import Curve, read_curves
from sparse_rnn.analysis.inputs import measure_on_samples
from sparse_rnn.analysis.maps import ConnectionMap, connection_map
from sparse_rnn.analysis.runs import Trained
from sparse_rnn.recurrent.finding import find_recurrent
from sparse_rnn.recurrent.layers import named_layers
from sparse_rnn.recurrent.spectrum import Spectrum, product_singular_values, spectrum
from sparse_rnn.recurrent.unroll import Unrolled
from sparse_rnn.sparsity.connections import Connections, connections

STEPS_BACK = (1, 2, 4, 8, 16, 32, 64)
PRODUCT_SAMPLES = 16  # a product costs as much as a spectrum for every k


@dataclass(frozen=True)
class Spectra:
    """What a model's layers do to a small change of their state.

    Attributes:
        steps: Layer to the spectrum of its last step.
        products: Layer to k to the singular values of the product of the last k Jacobians.
    """

    steps: Mapping[str, Spectrum] = field(default_factory=dict)
    products: Mapping[str, Mapping[int, Tensor]] = field(default_factory=dict)


@dataclass(frozen=True)
class Numbers:
    """The numbers of one checkpoint, by layer where they belong to one.

    Attributes:
        trained: The checkpoint.
        connections: What is left of the connections.
        maps: Where they lie.
        spectra: Those of the temporal Jacobian; empty without data.
        curves: Metric to its curve; empty without event files.
        validation_samples: How many samples a validation is of; None where that is not known.
    """

    trained: Trained
    connections: Mapping[str, Connections]
    maps: Mapping[str, ConnectionMap]
    spectra: Spectra
    curves: Mapping[str, Curve]
    validation_samples: int | None = None


def measure(trained: Trained, spectra: Spectra, validation_samples: int | None = None) -> Numbers:
    """Measure all numbers of a checkpoint but those that need data, which are given."""
    layers = named_layers(find_recurrent(trained.model))
    return Numbers(
        trained=trained,
        connections=connections(trained.model, trained.masks),
        maps={name: connection_map(layer, trained.masks) for name, layer in layers.items()},
        spectra=spectra,
        curves=read_curves(trained.folder),
        validation_samples=validation_samples,
    )


def measure_spectra(trained: Trained, data: LightningDataModule) -> Spectra:
    """Measure the spectra of a checkpoint on the first training samples of some data.

    Raises:
        UsageError: If there are too few samples, or a layer's Jacobian is not known.
    """
    return measure_on_samples(trained.model, data, _spectra)


def _spectra(calls: Mapping[str, Sequence[Unrolled]]) -> Spectra:
    used = {name: found for name, found in calls.items() if found}
    return Spectra(
        steps={name: _joined([spectrum(call) for call in found]) for name, found in used.items()},
        products={name: product_singular_values(found[0], STEPS_BACK, PRODUCT_SAMPLES) for name, found in used.items()},
    )


def _joined(spectra: Sequence[Spectrum]) -> Spectrum:
    """Join the spectra of several batches to that of all samples."""
    values = torch.cat([found.singular_values for found in spectra])
    return Spectrum(sum(found.chi * len(found.singular_values) for found in spectra) / len(values), values)
