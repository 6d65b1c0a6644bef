"""Each way of pruning with each of its options, in tiny fits: the masks honour what was asked for."""

from dataclasses import dataclass, field

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from torch import Tensor, nn

from sparse_rnn import (
    DynamicSparsity,
    GradualPruning,
    IterativePruning,
    LotteryTicket,
    NarangPruning,
    OneShotPruning,
)
from sparse_rnn.pruning.schedules import CosineDecay, Cubic, NarangRamp

INPUTS, UNITS, GATES = 3, 16, 3
IH, HH = "rnn.weight_ih_l0", "rnn.weight_hh_l0"
TOTAL = GATES * UNITS * (INPUTS + UNITS)
# The `data` of these tests gives a fit of two epochs 12 steps: all schedules end before them.
WAYS = {
    "one shot": lambda **options: OneShotPruning(criterion="magnitude", num_samples=16, **options),
    "iterative": lambda **options: IterativePruning(densities=(0.7, 0.5, 0.3), every=2, **options),
    "gradual": lambda **options: GradualPruning(schedule=Cubic(0, 8, 2), **options),
    "narang": lambda **options: NarangPruning(schedule=NarangRamp(1, 5, 11, 2), **options),
    # Each gate keeps its number of weights: so its density can be looked for in the end, too.
    "dynamic": lambda **options: DynamicSparsity(
        "gradient", CosineDecay(1.0, 2, 8), "gate", criterion="magnitude", num_samples=16, **options
    ),
    "lottery": lambda **options: LotteryTicket(rounds=2, **options),
}


@dataclass
class Asked:
    """Options, and what they mean.

    Attributes:
        options: What the callback is given.
        kept: How many weights are to stay: of all, by kernel, or by gate; None where that is open.
        slack: How far numbers may be from that, half a tile.
    """

    options: dict
    kept: int | dict[str, int | list[int | None]]
    slack: int = 0
    tile: tuple[int, int] | None = field(init=False)
    diagonal: bool = field(init=False)
    least: int = field(init=False)

    def __post_init__(self) -> None:
        self.tile = self.options.get("block_size")
        self.diagonal = self.options.get("keep_diagonal", False)
        self.least = self.options.get("min_kept", 0)


GATE_DENSITIES = {"*weight_hh*": {"r": 0.2, "z": 0.2, "n": 0.6}}
EVERYTHING = {"*weight_hh*": {"r": 0.25, "z": 0.25, "n": 0.5}, "*weight_ih*": 0.5}
# Of 912 weights 144 are in the input kernel, 48 in each gate, and 768 in the recurrent one, 256 in each gate.
ASKED = {
    "nothing but a sparsity": Asked({"sparsity": 0.9}, 91),
    "some kernels": Asked({"sparsity": 0.9, "kernels": ["*weight_hh*"]}, {HH: 77}),
    "no empty neuron": Asked({"sparsity": 0.95, "min_kept": 1}, 46),
    "two weights a neuron": Asked({"sparsity": 0.9, "min_kept": 2}, 91),
    "diagonals": Asked({"sparsity": 0.9, "keep_diagonal": True}, 91),
    "per kernel": Asked({"sparsity": 0.9, "allocation": "per_kernel"}, {IH: 14, HH: 77}),
    "per gate": Asked({"sparsity": 0.9, "allocation": "per_gate"}, {IH: [5, 5, 5], HH: [26, 26, 26]}),
    # 182 weights in the ratio of 144·(16 + 3)/(16·3) = 57 to 768·(16 + 16)/(16·16) = 96.
    "Erdős-Rényi": Asked({"sparsity": 0.8, "allocation": "erk"}, {IH: 68, HH: 114}),
    "gate densities": Asked({"sparsity": 0.6, "allocation": GATE_DENSITIES}, {IH: 365 - 256, HH: [51, 51, 154]}),
    "a density for everything": Asked(
        {"sparsity": 1 - 328 / TOTAL, "allocation": EVERYTHING}, {IH: 72, HH: [64, 64, 128]}
    ),
    "one gate left dense and one removed": Asked(
        {"sparsity": 0.5, "allocation": {"*hh*": {"r": 1.0, "z": 0.0}}}, {HH: [256, 0, None]}
    ),
    "tiles by their largest": Asked({"sparsity": 0.6, "block_size": (4, 8), "block_score": "max"}, 365, 16),
    "tiles by their mean square": Asked({"sparsity": 0.6, "block_size": (4, 8), "block_score": "mean_square"}, 365, 16),
    "tiles that do not divide a gate": Asked({"sparsity": 0.7, "block_size": (3, 5)}, 274, 8),
    "single weights as tiles": Asked({"sparsity": 0.9, "block_size": (1, 1)}, 91, 1),
    "tiles beside diagonals": Asked({"sparsity": 0.7, "block_size": (4, 8), "keep_diagonal": True}, 274, 16),
    "tiles and no empty neuron": Asked({"sparsity": 0.6, "block_size": (4, 8), "min_kept": 1}, 365, 16),
    "tiles and gate densities": Asked(
        {"sparsity": 0.6, "block_size": (4, 8), "allocation": GATE_DENSITIES}, {IH: 109, HH: [51, 51, 154]}, 16
    ),
    "diagonals and no empty neuron": Asked({"sparsity": 0.9, "keep_diagonal": True, "min_kept": 1}, 91),
    "diagonals and gate densities": Asked(
        {"sparsity": 0.6, "keep_diagonal": True, "allocation": GATE_DENSITIES}, {IH: 109, HH: [51, 51, 154]}
    ),
    "gate densities and no empty neuron": Asked(
        {
            "sparsity": 1 - 187 / TOTAL,
            "min_kept": 1,
            "allocation": {"*hh*": {"r": 0.1, "z": 0.1, "n": 0.3}, "*ih*": 0.4},
        },
        {IH: 58, HH: [26, 26, 77]},
    ),
    "per gate with all guards": Asked(
        {"sparsity": 0.85, "allocation": "per_gate", "keep_diagonal": True, "min_kept": 1},
        {IH: [7, 7, 7], HH: [38, 38, 38]},
    ),
    "all at once": Asked(
        {
            "sparsity": 1 - 456 / TOTAL,
            "block_size": (2, 4),
            "block_score": "mean_square",
            "keep_diagonal": True,
            "min_kept": 1,
            "allocation": {"*hh*": {"r": 0.4, "z": 0.4, "n": 0.7}},
        },
        {IH: 456 - 383, HH: [102, 102, 179]},
        4,
    ),
}


class Project(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(INPUTS, UNITS, batch_first=True)
        self.head = nn.Linear(UNITS, 4)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return nn.functional.cross_entropy(self.head(self.rnn(x)[0][:, -1]), y)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.01, weight_decay=0.1)


class Before(Callback):
    """Stands before the pruning callback: notes |w| as it finds them."""

    def on_fit_start(self, trainer, pl_module):
        self.sizes = {name: pl_module.get_parameter(name).detach().abs().clone() for name in (IH, HH)}

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.on_fit_start(trainer, pl_module)


class After(Callback):
    """Stands after it: notes the masks, by whose sizes they came; looks that all that is removed is 0."""

    def __init__(self, pruning, before) -> None:
        self.pruning, self.before = pruning, before
        self.changes = []

    def look(self, trainer, pl_module, *args):
        masks = self.pruning.masks
        for name, mask in masks.items():
            assert (pl_module.get_parameter(name)[~mask] == 0).all()
        if not self.changes or self.changes[-1][0] is not masks:
            self.changes.append((masks, self.before.sizes))

    on_fit_start = on_train_batch_end = look


def by_gate(tensor: Tensor) -> Tensor:
    return tensor.view(GATES, UNITS, -1)


def free(name: str, asked: Asked) -> Tensor:
    """Where weights of a gate belong to tiles: everywhere but on diagonals that are kept."""
    everywhere = torch.ones(UNITS, INPUTS if name == IH else UNITS, dtype=torch.bool)
    return ~torch.eye(UNITS, dtype=torch.bool) if name == HH and asked.diagonal else everywhere


def tiles(name: str, asked: Asked, tensor: Tensor) -> list[Tensor]:
    """What the tiles of a kernel hold of a tensor, gate by gate, from the upper left corner."""
    height, width = asked.tile or (1, 1)
    here = free(name, asked)
    return [
        part
        for gate in by_gate(tensor)
        for i in range(0, UNITS, height)
        for j in range(0, gate.shape[1], width)
        if len(part := gate[i : i + height, j : j + width][here[i : i + height, j : j + width]])
    ]


def assert_guards(masks, asked: Asked, first: bool = True) -> None:
    """Diagonals stay and tiles are whole at any time; ``first``: every gate and neuron keeps its least."""
    for name, mask in masks.items():
        gates = by_gate(mask)
        if asked.diagonal and name == HH:
            assert gates.diagonal(dim1=1, dim2=2).all()
        if asked.tile:
            assert all(part.all() or not part.any() for part in tiles(name, asked, mask))
        if first:
            assert (gates.sum((1, 2)) >= asked.least).all()
            assert (gates.sum((0, 2)) >= asked.least).all()


def assert_numbers(masks, asked: Asked) -> None:
    wanted = asked.kept if isinstance(asked.kept, dict) else {}
    for name, numbers in wanted.items():
        kept = by_gate(masks[name]).sum((1, 2)).tolist()
        pairs = zip(kept, numbers, strict=True) if isinstance(numbers, list) else [(sum(kept), numbers)]
        assert all(number is None or abs(count - number) <= asked.slack for count, number in pairs), (name, kept)
    if "kernels" not in asked.options:
        total = round((1 - asked.options["sparsity"]) * TOTAL)
        # Where every group is rounded by itself, so is the sum.
        groups = {"per_kernel": 2, "per_gate": 6}.get(str(asked.options.get("allocation")), 0)
        if isinstance(asked.kept, dict) and asked.slack:
            groups = 4 * 2 * asked.slack
        assert abs(masks.kept - total) <= max(groups / 2, asked.slack)
    if not wanted:
        assert abs(masks.kept - asked.kept) <= asked.slack


@pytest.fixture
def pruned(train):
    """Fits with a way of pruning and options; gives the callback, the model, and what ``After`` noted."""

    def pruned(way, options):
        pruning, before = WAYS[way](**options), Before()
        after = After(pruning, before)
        module = train(Project, [before, pruning, after]).lightning_module
        return pruning, module, after.changes

    return pruned


@pytest.mark.each_value
@pytest.mark.parametrize("name", ASKED)
@pytest.mark.parametrize("way", WAYS)
def test_the_masks_honour_the_options(pruned, way, name):
    asked = ASKED[name]
    pruning, module, changes = pruned(way, asked.options)
    assert len(changes) >= {"one shot": 1, "lottery": 3}.get(way, 4)
    first, final = changes[0][0], pruning.masks
    assert list(final) == [kernel for kernel in (IH, HH) if kernel == HH or "kernels" not in asked.options]
    for masks, _ in changes:
        assert_guards(masks, asked, first=way != "dynamic")
    assert_numbers(first if way == "dynamic" else final, asked)
    if way == "dynamic":  # weights move, or tiles, of which those at the edges and on diagonals are smaller
        assert_guards(first, asked)
        assert final.digest() != first.digest()
        for kernel, mask in final.items():
            before, after = (
                [
                    sum(bool(part.any()) for part in tiles(kernel, asked, m.view(GATES, -1)[g].repeat(GATES)))
                    for g in range(GATES)
                ]
                for m in (first[kernel], mask)
            )
            assert before == after
    elif way == "one shot":
        assert final is first
    else:
        assert first.kept == first.total  # training begins dense
    for kernel, mask in final.items():
        weight = module.get_parameter(kernel)
        assert (weight[~mask] == 0).all()
        assert weight[mask].count_nonzero() == mask.sum()


def score(part: Tensor, left: Tensor, how: str) -> float:
    """What ranks a tile: of the weights that are left."""
    sizes = part[left]
    return float(sizes.max() if how == "max" else sizes.double().square().mean().sqrt())


@pytest.mark.each_value
@pytest.mark.parametrize("how", ["max", "mean_square"])
@pytest.mark.parametrize("size", [(4, 8), (3, 5), (1, 1)])
@pytest.mark.parametrize("way", WAYS)
def test_at_every_change_the_tiles_with_the_best_scores_stay(pruned, way, size, how):
    asked = Asked({"sparsity": 0.8, "block_size": size, "block_score": how}, 182)
    _, _, changes = pruned(way, asked.options)
    before = {name: torch.ones(len(mask), mask.shape[1], dtype=torch.bool) for name, mask in changes[0][0].items()}
    gone = 0
    for masks, sizes in changes[:1] if way == "dynamic" else changes:
        kept, removed = [], []
        for name, mask in masks.items():
            parts = (tiles(name, asked, tensor) for tensor in (mask, sizes[name], before[name]))
            for stays, part, left in zip(*parts, strict=True):
                if left.any():
                    (kept if stays.any() else removed).append(score(part, left, how))
        assert not removed or min(kept) >= max(removed) - 1e-6
        before = dict(masks)
        gone += len(removed)
    assert gone


@pytest.mark.parametrize("way", WAYS)
def test_the_options_are_needed(pruned, way):
    """Without them the masks are others: the tests above would find out."""
    pruning, _, changes = pruned(way, {"sparsity": 0.95})
    first = changes[0][0] if way == "dynamic" else pruning.masks
    assert not by_gate(first[IH]).any(2).any(0).all()
    assert not by_gate(first[HH]).diagonal(dim1=1, dim2=2).all()
    plain = Asked({"block_size": (4, 8)}, 0)
    assert not all(part.all() or not part.any() for part in tiles(HH, plain, first[HH]))
    with_tiles = [pruned(way, ASKED[f"tiles by their {how}"].options)[0] for how in ("largest", "mean square")]
    assert with_tiles[0].masks.digest() != with_tiles[1].masks.digest()
