"""Carries out a plan: the model becomes smaller, and stays a model of the same classes."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from sparse_rnn.errors import UsageError
from sparse_rnn.pruning.structured.groups import weight_of
from sparse_rnn.pruning.structured.products import embeds
from sparse_rnn.pruning.structured.units import Plan, Reader, UnitPlan, all_but
from sparse_rnn.states import names_of

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class Edit:
    """What becomes of a parameter.

    Attributes:
        kept: Dimension to the positions along it that stay, ascending.
        readers: The readers in it, each with its kept units.
        fold: What is added to it first; None for nothing.
    """

    kept: Mapping[int, Tensor]
    readers: tuple[tuple[Reader, Tensor], ...] = ()
    fold: Tensor | None = None

    def select(self, values: Tensor) -> Tensor:
        """Return what stays of a tensor shaped as the parameter: a mask, a moment of its optimizer, an average."""
        for dim, positions in self.kept.items():
            values = values.index_select(dim, positions.to(values.device))
        return values

    def apply(self, weight: Tensor) -> Tensor:
        """Return the new values of the parameter, computed in float64."""
        new = weight.detach().double()
        for reader, kept in self.readers:
            if reader.reconstruction is not None:
                new = _reconstructed(new, reader, reader.reconstruction.to(new), kept)
        if self.fold is not None:
            new = new + self.fold.to(new)
        return self.select(new).to(weight.dtype)


def _reconstructed(weight: Tensor, reader: Reader, matrix: Tensor, kept: Tensor) -> Tensor:
    """Multiply what reads the units by the reconstruction; the result stands in the columns of the kept units."""
    rows = torch.arange(len(weight), device=weight.device) if reader.rows is None else reader.rows
    rows, columns = rows.to(weight.device), reader.columns.to(weight.device)
    part = weight if reader.dim == 0 else weight[rows]
    new = (part.index_select(reader.dim, columns).movedim(reader.dim, -1) @ matrix).movedim(-1, reader.dim)
    part = part.index_copy(reader.dim, columns[kept.to(weight.device)], new)
    return part if reader.dim == 0 else weight.index_copy(0, rows, part)


def edits(model: nn.Module, plan: Plan) -> dict[str, Edit]:
    """Return what becomes of each parameter that a plan touches, by its name in the model.

    Example:
        >>> from sparse_rnn.pruning.structured import UnitMagnitude
        >>> model = nn.Sequential(nn.RNN(3, 4))
        >>> plan = UnitMagnitude(units=2).plan(model, torch.zeros(5, 1, 3), readers={"0": []})
        >>> {name: edit.select(model.get_parameter(name)).shape for name, edit in edits(model, plan).items()}
        {'0.weight_ih_l0': torch.Size([2, 3]), '0.weight_hh_l0': torch.Size([2, 2]), '0.bias_ih_l0': torch.Size([2]),
        '0.bias_hh_l0': torch.Size([2])}
    """
    kept: dict[str, dict[int, Tensor]] = {}
    gone: dict[tuple[str, int], list[Tensor]] = {}
    readers: dict[str, list[tuple[Reader, Tensor]]] = {}
    folds: dict[str, Tensor] = {}
    for unit_plan in plan:
        _check_fits(model, unit_plan)
        for writer in unit_plan.writers:
            positions = writer.positions(unit_plan.kept, unit_plan.units)
            kept.setdefault(writer.parameter, {})[writer.dim] = positions
        removed = all_but(unit_plan.kept, unit_plan.units)
        for reader in unit_plan.readers:
            gone.setdefault((reader.parameter, reader.dim), []).append(reader.columns[removed])
            readers.setdefault(reader.parameter, []).append((reader, unit_plan.kept))
        for name, fold in unit_plan.folds.items():
            folds[name] = folds[name] + fold if name in folds else fold
    for (name, dim), columns in gone.items():
        size = weight_of(model, name, len(readers[name][0][0].columns)).shape[dim]
        kept.setdefault(name, {})[dim] = all_but(torch.cat(columns), size).nonzero().flatten()
    return {
        name: Edit(kept.get(name, {}), tuple(readers.get(name, ())), folds.get(name))
        for name in dict.fromkeys([*kept, *folds])
    }


def shrink(model: Model, plan: Plan) -> Model:
    """Return a copy of a model without the units that a plan removes.

    It is made of the same classes, only smaller ones (``nn.LSTM(hidden_size=42)``), so that its ``state_dict`` loads
    into a model that was built with the smaller size, and it exports as the larger one does. A hyperparameter
    ``hidden_size`` of a LightningModule follows, so that ``load_from_checkpoint`` builds the smaller model.

    Args:
        model: The model, which stays as it is.
        plan: What a criterion has planned for it.

    Raises:
        UsageError: If the plan is not one of this model.

    Example:
        >>> from sparse_rnn.pruning.structured import Spectral
        >>> class Tagger(nn.Module):
        ...     def __init__(self, hidden_size):
        ...         super().__init__()
        ...         self.rnn, self.head = nn.GRU(3, hidden_size), nn.Linear(hidden_size, 5)
        ...
        ...     def forward(self, x):
        ...         return self.head(self.rnn(x)[0])
        >>> model, x = Tagger(40), torch.randn(20, 8, 3)
        >>> small = shrink(model, Spectral(units=10).plan(model, x))
        >>> small.rnn, small.head
        (GRU(3, 10), Linear(in_features=10, out_features=5, bias=True))
        >>> Tagger(10).load_state_dict(small.state_dict())
        <All keys matched successfully>
    """
    small = copy.deepcopy(model)
    shrink_(small, plan)
    return small


@torch.inference_mode(False)  # its parameters are to be trained on
@torch.no_grad()
def shrink_(model: nn.Module, plan: Plan) -> dict[str, Edit]:
    """Do as :func:`shrink` in place; parameters stay the same objects, so that an optimizer still has them.

    What an optimizer or an average has of them is smaller only once it is selected likewise. Gradients are cleared.

    Args:
        model: The model.
        plan: What a criterion has planned for it.

    Returns:
        Name of a parameter to what has become of it, see :class:`Edit`.

    Raises:
        UsageError: If the plan is not one of this model.

    Example:
        >>> from sparse_rnn.pruning.structured import UnitMagnitude
        >>> rnn = nn.RNN(3, 4)
        >>> edits = shrink_(rnn, UnitMagnitude(units=2).plan(rnn, torch.zeros(5, 1, 3), readers={"RNN": []}))
        >>> rnn, edits["weight_hh_l0"].select(torch.ones(4, 4)).shape
        (RNN(3, 2), torch.Size([2, 2]))
    """
    planned = edits(model, plan)
    names = names_of(model)
    old_sizes = {name: _hidden_size(model, name) for name in plan.sizes}
    new = {name: edit.apply(weight_of(model, name, _units(edit))) for name, edit in planned.items()}
    for name, values in new.items():
        owner_name = name.rpartition(".")[0]
        if isinstance(model.get_submodule(owner_name), nn.Identity):
            _replace_identity(model, owner_name, values)
            continue
        parameter = model.get_parameter(name)
        shared = names[parameter]
        if any(embeds(model, other) for other in shared):
            parameter = nn.Parameter(values, requires_grad=parameter.requires_grad)
        _resize(parameter, values)
        for other in (other for other in shared if not embeds(model, other)):
            owner_name, _, attribute = other.rpartition(".")
            setattr(model.get_submodule(owner_name), attribute, parameter)
            _follow(model.get_submodule(owner_name), attribute, values)
    for name, size in plan.sizes.items():
        module: Any = model.get_submodule(name)
        module.hidden_size = size
        if isinstance(module, nn.RNNBase):
            module.flatten_parameters()
    _follow_hparams(model, old_sizes, plan.sizes)
    return planned


def _resize(parameter: nn.Parameter, values: Tensor) -> None:
    """Give a parameter values of another shape; it stays the same object."""
    parameter.grad = None
    # A graph that is still about, or DDP, holds the node that adds up the gradient, in the old shape. PyTorch makes a
    # new one where the dtype changes, but not for a shape.
    parameter.data = values.new_empty(0, dtype=torch.bfloat16 if values.dtype == torch.float16 else torch.float16)
    parameter.data = values


def _units(edit: Edit) -> int:
    return len(edit.readers[0][0].columns) if edit.readers else 0


def _hidden_size(model: nn.Module, name: str) -> int:
    module: Any = model.get_submodule(name)
    return module.hidden_size


def _check_fits(model: nn.Module, plan: UnitPlan) -> None:
    known = dict(model.named_parameters(remove_duplicate=False))
    modules = dict(model.named_modules())
    for reader in plan.readers:
        owner = reader.parameter.rpartition(".")[0]
        if reader.parameter not in known and not isinstance(modules.get(owner), nn.Identity):
            raise UsageError(
                f"The plan says that {reader.parameter} reads {plan.layer}, and the model has no such parameter: plan "
                "anew."
            )
    for writer in plan.writers:
        found = known[writer.parameter].shape[writer.dim] // writer.blocks if writer.parameter in known else 0
        if found != plan.units:
            raise UsageError(
                f"The plan is one for {plan.units} units of {plan.layer}, and the model has {found} there: plan anew."
            )


def _replace_identity(model: nn.Module, name: str, values: Tensor) -> None:
    """Put the linear layer in the place of an identity that a reconstruction has been multiplied into."""
    parent, _, attribute = name.rpartition(".")
    like = next(iter(model.parameters()))
    outputs, inputs = values.shape
    linear = nn.Linear(inputs, outputs, device=like.device, dtype=like.dtype)
    linear.weight.copy_(values)
    nn.init.zeros_(linear.bias)
    setattr(model.get_submodule(parent), attribute, linear.train(model.training))


def _follow(owner: nn.Module, attribute: str, values: Tensor) -> None:
    """Let a module say the size that it has."""
    if isinstance(owner, nn.Linear) and attribute == "weight":
        owner.out_features, owner.in_features = values.shape
    elif attribute in ("weight_ih_l0", "weight_ih") and hasattr(owner, "input_size"):
        recurrent: Any = owner
        recurrent.input_size = values.shape[1]


def _follow_hparams(model: nn.Module, old: Mapping[str, int], new: Mapping[str, int]) -> None:
    """Let the hyperparameters of a LightningModule build the smaller model."""
    hparams = getattr(model, "hparams", None)
    sizes = {(old[name], new[name]) for name in new}
    if not isinstance(hparams, dict) or len(sizes) != 1:
        return
    (before, after) = sizes.pop()
    if hparams.get("hidden_size") == before:
        hparams["hidden_size"] = after
