"""A recurrent network whose units are the nodes of a graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import accumulate, pairwise
from typing import Any, Literal

import networkx as nx
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from sparse_rnn.checks import check_whole
from sparse_rnn.errors import check_choice
from sparse_rnn.modules.init import InitScheme, init_biases_, init_kernel_
from sparse_rnn.modules.layers import Cell, kept_bias, recurrent_layer
from sparse_rnn.sparsity.graphs import LayeredGraph
from sparse_rnn.sparsity.holding import Hold
from sparse_rnn.sparsity.masks import Masks

GateMasks = Literal["tiled", "repeated"]


class StructuredRNN(nn.Module):
    """A recurrent network with the structure of any graph (Darji, arXiv 2407.20601).

    The nodes are its units, in the layers of :class:`~sparse_rnn.sparsity.graphs.LayeredGraph`. A layer reads the
    layer before it through the arcs between them, and its own state through all weights. From each earlier layer with
    arcs into it there is a recurrent layer more, with weights and a state of its own, and the sequences that they all
    put out are added up. All sources read all of the input.

    Those recurrent layers of one target are one module of ``layers``, side by side: its ``weight_ih`` is 0 where there
    is no arc, its ``weight_hh`` outside the blocks of its parts. What has to be 0 is so from the beginning and stays so
    in any training, see :attr:`masks`; gradients are 0 there, too. The rows of every gate have the mask of the arcs.

    Args:
        graph: The graph; a directed one must not have a cycle.
        cell: Kind of recurrent layer.
        input_size: Features of a step; the number of sources where not given.
        nonlinearity: Activation of the cell ``rnn``.
        gate_masks: ``tiled``, or ``repeated`` for the mistake of the thesis: each row of a mask as often as there are
            gates, one after the other, so that they land on other units than those of the arcs.

    Attributes:
        graph: The layers of the graph.
        masks: Name of a kernel to its mask, True where there may be a weight.

    Raises:
        UsageError: If the graph has no node, an edge from a node to itself, or a cycle; or the cell is unknown.

    Example:
        >>> import networkx as nx
        >>> rnn = StructuredRNN(nx.Graph([(0, 1), (1, 2), (0, 2)]), cell="gru", input_size=5)
        >>> output, state = rnn(torch.zeros(8, 10, 5))
        >>> output.shape, [h.shape for h in state]
        (torch.Size([8, 10, 1]), [torch.Size([1, 8, 1]), torch.Size([1, 8, 1]), torch.Size([1, 8, 2])])
    """

    def __init__(
        self,
        graph: nx.Graph,
        cell: Cell = "gru",
        input_size: int | None = None,
        nonlinearity: str = "tanh",
        gate_masks: GateMasks = "tiled",
    ) -> None:
        super().__init__()
        check_choice("gate_masks", gate_masks, GateMasks)
        check_whole("input_size", input_size, 1, optional=True)
        self.graph = LayeredGraph.of(graph)
        self.cell: Cell = cell
        sizes = self.graph.sizes
        self.input_size = sizes[0] if input_size is None else input_size
        self.hidden_size = sizes[-1]
        self._sources = [self.graph.sources(target) for target in range(len(sizes))]
        options: dict[str, Any] = {"nonlinearity": nonlinearity} if cell == "rnn" else {}
        self.layers = nn.ModuleList(
            recurrent_layer(cell, sum(self._widths(at)), size * len(self._widths(at)), **options)
            for at, size in enumerate(sizes)
        )
        self.masks = Masks(dict(self._masks(gate_masks)), None)
        self.register_load_state_dict_post_hook(_loaded)
        self.init_("torch")
        self._hold()

    def init_(
        self, init: InitScheme, init_scale: float | None = None, forget_bias: float = 0.0, update_bias: float = 0.0
    ) -> None:
        """Fill the kernels of each recurrent layer by itself, and set biases, as ``init_recurrent_`` does."""
        for target, layer in enumerate(self.layers):
            for name, kernel in _kernels(layer):
                for _, _, block in self._blocks(target, name, kernel.data):
                    init_kernel_(block, self.graph.sizes[target], init, init_scale)
            init_biases_(
                layer,
                self.graph.sizes[target] * len(self._widths(target)),
                kept_bias(self.cell, forget_bias, update_bias),
            )
        _zero(self)

    def forward(
        self, x: Tensor | PackedSequence, state: Sequence[Any] | None = None
    ) -> tuple[Tensor | PackedSequence, list[Any]]:
        """Run sequences through all layers.

        Args:
            x: Sequences, [batch, time, input_size], or packed.
            state: What the call before returned, to go on from there; zeros where not given.

        Returns:
            The output of the last layer, [batch, time, its nodes], or packed, and the state of every layer, as its
            module returns it.
        """
        before = [None] * len(self.layers) if state is None else state
        outputs: list[Tensor] = []
        after = []
        for target, layer in enumerate(self.layers):
            steps = [outputs[source] for source in self._sources[target]] if target else [_steps(x)]
            y, state_of = layer(_like(torch.cat(steps, dim=-1), x), before[target])
            outputs.append(self._added(_steps(y), target))
            after.append(state_of)
        return _like(outputs[-1], x), after

    def last_output(self, state: Sequence[Any]) -> Tensor:
        """Return what the last layer puts out after the last step of each sequence, [batch, its nodes]."""
        top = state[-1]
        return self._added((top[0] if isinstance(top, tuple) else top)[0], len(self.layers) - 1)

    def extra_repr(self) -> str:
        """Say how many nodes and arcs there are."""
        return f"{len(self.graph.arcs)} nodes, {self.graph.arcs.number_of_edges()} arcs"

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_held", "_watched")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # copies and what is unpickled, too
        self._hold()

    def _widths(self, target: int) -> list[int]:
        """Features that each part of a layer reads."""
        return [self.graph.sizes[source] for source in self._sources[target]] if target else [self.input_size]

    def _added(self, y: Tensor, target: int) -> Tensor:
        parts = len(self._widths(target))
        return y if parts == 1 else y.unflatten(-1, (parts, -1)).sum(dim=-2)

    def _blocks(self, target: int, name: str, kernel: Tensor) -> Iterator[tuple[int, int, Tensor]]:
        """View a kernel of a layer, for each gate and part of it, as what that part reads: [units, inputs]."""
        size, widths = self.graph.sizes[target], self._widths(target)
        ends = accumulate(widths if _reads_input(name) else [size] * len(widths), initial=0)
        columns = [slice(*pair) for pair in pairwise(ends)]
        for gate, by_part in enumerate(kernel.unflatten(0, (-1, len(widths), size))):
            for part, rows in enumerate(by_part):
                yield gate, part, rows[:, columns[part]]

    def _masks(self, gate_masks: GateMasks) -> Iterator[tuple[str, Tensor]]:
        for target, layer in enumerate(self.layers):
            for name, kernel in _kernels(layer):
                mask = torch.zeros(kernel.shape, dtype=torch.bool, device="cpu")
                gates = len(mask) // (self.graph.sizes[target] * len(self._widths(target)))
                for gate, part, block in self._blocks(target, name, mask):
                    if target and _reads_input(name):
                        arcs = self.graph.mask(self._sources[target][part], target)
                        tiled = gate_masks == "tiled"
                        block.copy_(arcs if tiled else arcs.repeat_interleave(gates, 0).tensor_split(gates)[gate])
                    else:
                        block.fill_(True)
                yield f"layers.{target}.{name}", mask

    def _hold(self) -> None:
        self._held = Hold(self, list(self.masks), self.masks.apply_to_)
        self._watched: dict[str, nn.Parameter] = {}
        self.mask_gradients_()

    def mask_gradients_(self) -> None:
        """Mask the gradients of all kernels, those that loading has put in the place of others too."""
        for name, mask in self.masks.items():
            parameter = self.get_parameter(name)
            if self._watched.get(name) is not parameter:
                self._watched[name] = parameter
                trained = parameter.requires_grad
                parameter.requires_grad_().register_hook(partial(_masked, mask))  # one that is frozen would refuse it
                parameter.requires_grad_(trained)


def _kernels(layer: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, parameter) for name, parameter in layer.named_parameters() if name.startswith("weight"))


def _reads_input(name: str) -> bool:
    return name.startswith("weight_ih")


def _steps(x: Tensor | PackedSequence) -> Tensor:
    return x.data if isinstance(x, PackedSequence) else x


def _like(steps: Tensor, x: Tensor | PackedSequence) -> Tensor | PackedSequence:
    """Put the steps of packed sequences into their order again."""
    return PackedSequence(steps, *x[1:]) if isinstance(x, PackedSequence) else steps


def _masked(mask: Tensor, gradient: Tensor) -> Tensor:
    # A choice, not a product, which keeps what is not finite; and not in place, so that it has a derivative itself.
    return torch.where(mask.to(gradient.device), gradient, 0.0)


def _zero(module: StructuredRNN) -> None:
    """Set to 0 what has to be, after the weights were written in whatever way."""
    module.masks.apply_to_((name, module.get_parameter(name)) for name in module.masks)


def _loaded(module: StructuredRNN, _: Any) -> None:
    _zero(module)
    module.mask_gradients_()
