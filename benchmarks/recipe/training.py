"""Train a GRU on sequential MNIST in plain PyTorch, with starts and masks that the configs need not know.

The first 50,000 training images train and the last 10,000 select; the test images are not looked at.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import criteria
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from sparse_rnn.data import SequentialMNIST
from sparse_rnn.engine.live import Engine
from sparse_rnn.modules import init_recurrent_
from sparse_rnn.pruning.prune import prune
from sparse_rnn.pruning.schedules import CosineDecay, Cubic
from sparse_rnn.recurrent.kernels import find_targets
from sparse_rnn.scores import Criterion, criterion_named
from sparse_rnn.sparsity.growth import random_scores
from sparse_rnn.sparsity.masks import Masks
from sparse_rnn.sparsity.selection import Selection

INPUTS, STEPS, CLASSES = 28, 28, 10
TRAINED, IMAGES = 50_000, 60_000
IH, HH = "rnn.weight_ih_l0", "rnn.weight_hh_l0"

Split = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Settings:
    """All that a run depends on but its seed.

    Attributes:
        units: Units of the GRU.
        epochs: Epochs of 782 steps.
        lr: Adam's rate at first.
        decay: How it falls to 0: ``linear`` or ``cosine``.
        clip: Norm at which gradients are clipped.
        betas: Adam's.
        weight_decay: AdamW's; 0: Adam.
        kernel_rate: The kernels' rate is ``lr`` times this power of 1 / density (1: SμPar).
        init: Distribution of the kernels; see :func:`sparse_rnn.modules.init.init_kernel_`.
        init_scale: Its scale.
        update_bias: Bias of the update gate z at first; above 0 the state is kept longer. ``chrono``: log U(1, T - 1)
            for sequences of T steps (Tallec and Ollivier, arXiv 1804.11188).
        dropout: Of what the classifier reads of the state, in training.
        input_dropout: Of the pixels, in training.
        smoothing: Of the labels, in the loss that is trained: the share that all classes divide.
        sparsity: Share of the weights that are removed; 0: dense.
        criterion: What chooses the first mask: a name of the library's, that name and arguments, or ``std``, random
            with the columns of the input kernel in proportion to the standard deviation of that input.
        shuffle: Whether its weights are moved to random places of the same gate.
        allocation: See :func:`sparse_rnn.sparsity.allocate`.
        keep_diagonal: See :func:`sparse_rnn.prune`.
        rescale: Likewise.
        givens: Density of the recurrent kernel, whose gates are orthogonal; see :func:`orthogonal`. None: not so.
        gain: What these are multiplied by.
        remove: Arguments of :class:`Cubic`: dense at first, then pruned by magnitude. None: sparse from the first step.
        move: Arguments of :class:`CosineDecay`, and ``growth`` (random, gradient) and ``redistribution`` (kernel, gate)
            as those of :class:`sparse_rnn.DynamicSparsity`; and ``throughout``, whether weights move while others are
            removed, as with the ``regrowth`` of :class:`sparse_rnn.GradualPruning`. None: weights do not move.
        fill: Whether Adam's second moment of grown weights starts at the mean of the others, not at 0.
    """

    units: int = 100
    epochs: int = 5
    lr: float = 0.02
    decay: str = "linear"
    clip: float | None = 1.0
    betas: Sequence[float] = (0.9, 0.999)
    weight_decay: float = 0.0
    kernel_rate: float = 0.0
    init: Any = "normal"
    init_scale: float | None = None
    update_bias: Any = 0.0
    dropout: float = 0.0
    input_dropout: float = 0.0
    smoothing: float = 0.0
    sparsity: float = 0.95
    criterion: Any = "Random"
    shuffle: bool = False
    allocation: Any = "per_kernel"
    keep_diagonal: bool = False
    rescale: Any = False
    givens: float | None = None
    gain: float = 1.0
    remove: dict[str, Any] | None = None
    move: dict[str, Any] | None = None
    fill: bool = False


@dataclass
class Figures:
    """What a run ends with: errors in %, densities of the kernels and of the gates r, z, n of each."""

    error: float
    error_after_epoch_1: float
    loss: float
    density: float
    input_density: float
    gates_ih: list[float]
    gates_hh: list[float]
    seconds: float


def mnist() -> tuple[Split, Split]:
    images, labels = SequentialMNIST(split="paper").splits.train.tensors  # 60,000 images, then 3,000 test images
    selected = slice(TRAINED, IMAGES)
    return (images[:TRAINED].clone(), labels[:TRAINED].clone()), (images[selected].clone(), labels[selected].clone())


class Classifier(nn.Module):
    def __init__(self, settings: Settings) -> None:
        super().__init__()
        units = settings.units
        self.rnn = nn.GRU(INPUTS, units, batch_first=True)
        self.input_dropout = nn.Dropout(settings.input_dropout)
        self.dropout = nn.Dropout(settings.dropout)
        self.head = nn.Linear(units, CLASSES)
        init_recurrent_(self.rnn, "gru", units, settings.init, settings.init_scale, forget_bias=1.0)
        nn.init.xavier_uniform_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        with torch.no_grad():
            bias = self.rnn.get_parameter("bias_ih_l0")[units : 2 * units]  # gates: r, z, n
            if settings.update_bias == "chrono":
                bias.uniform_(1, STEPS - 1).log_()
            else:
                bias.fill_(settings.update_bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dropout(self.rnn(self.input_dropout(x))[1][-1]))


def orthogonal(size: int, density: float, generator: torch.Generator) -> Tensor:
    """Turn pairs of rows of a random permutation until a share of the matrix is not 0 (EOI, arXiv 2406.01755)."""
    matrix = torch.eye(size)[torch.randperm(size, generator=generator)]
    while int(matrix.count_nonzero()) < density * size * size:
        i, j = torch.randperm(size, generator=generator)[:2].tolist()
        angle = float(torch.rand(1, generator=generator)) * 2 * math.pi
        first, second = matrix[i].clone(), matrix[j].clone()
        matrix[i] = math.cos(angle) * first - math.sin(angle) * second
        matrix[j] = math.sin(angle) * first + math.cos(angle) * second
    return matrix


def orthogonal_masks(model: Classifier, settings: Settings, seed: int) -> Masks:
    """Make the gates of the recurrent kernel sparse and orthogonal; the input kernel gets a random mask of the rest."""
    assert settings.givens is not None
    generator = torch.Generator().manual_seed(seed)
    ih, hh = (model.get_parameter(name) for name in (IH, HH))
    with torch.no_grad():
        for gate in hh.split(settings.units):
            gate.copy_(settings.gain * orthogonal(settings.units, settings.givens, generator))
        state_mask = hh != 0
        left = round((1 - settings.sparsity) * (ih.numel() + hh.numel())) - int(state_mask.sum())
        scores = torch.rand(ih.shape, generator=generator)
        input_mask = scores >= scores.flatten().sort(descending=True).values[left - 1]
        ih.mul_(input_mask)
    return Masks({IH: input_mask, HH: state_mask}, model)


def first_masks(model: Classifier, settings: Settings, seed: int, train: Split) -> Masks | None:
    """Return the masks before the first step, applied; None for a network that stays dense."""
    if not settings.sparsity:
        return None
    if settings.remove is not None:
        return Masks.full(find_targets(model))
    if settings.givens is not None:
        return orthogonal_masks(model, settings, seed)
    images, labels = (tensor[64 * seed : 64 * seed + 64] for tensor in train)
    return prune(
        model,
        images,
        sparsity=settings.sparsity,
        criterion=criterion_of(settings, train),
        allocation=settings.allocation,
        rescale=settings.rescale,
        keep_diagonal=settings.keep_diagonal,
        seed=seed,
        shuffle=settings.shuffle,
        loss_fn=lambda module, batch: cross_entropy(module(batch), labels),
    )


def criterion_of(settings: Settings, train: Split) -> Criterion:
    if settings.criterion == "std":
        return criteria.InputDeviation(train[0].reshape(-1, INPUTS).std(0))
    if isinstance(settings.criterion, str):
        return criterion_named(settings.criterion)
    name, arguments = settings.criterion
    return type(criterion_named(name))(**arguments)


@dataclass
class Mover:
    """Changes the masks while training: removes weights, then moves those that are left."""

    settings: Settings
    model: Classifier
    seed: int
    total: int
    removal: Cubic | None = field(init=False, default=None)
    moves: CosineDecay | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        how = dict(self.settings.move or {})
        self.growth, self.redistribution = how.pop("growth", "random"), how.pop("redistribution", "kernel")
        self.throughout = how.pop("throughout", False)
        if self.settings.remove is not None:
            self.removal = Cubic(**self.settings.remove).over(self.total)
        if self.settings.move is not None:
            self.moves = CosineDecay(**how).over(self.total)
        self.targets = find_targets(self.model)
        self.selection = Selection.of(
            self.settings.sparsity, self.settings.allocation, keep_diagonal=self.settings.keep_diagonal
        )

    def moves_at(self, step: int) -> bool:
        removing = self.removal is not None and step <= self.removal.end and not self.throughout
        return self.moves is not None and self.moves.updates_at(step) and not removing

    def needs_gradients(self, step: int) -> bool:
        return self.moves_at(step) and self.growth == "gradient"

    def masks(self, step: int, masks: Masks, gradients: dict[str, Tensor]) -> Masks | None:
        """Return the masks after a step; None where they stay as they are."""
        worth = {name: kernel.parameter.detach().abs() for name, kernel in self.targets.items()}
        removed = None
        if self.removal is not None and self.removal.updates_at(step):
            share = self.removal.share(step, self.settings.sparsity)
            removed = masks = self.selection.best(self.targets, worth, masks, share)
        if self.moves is None or not self.moves_at(step):
            return removed
        if self.growth == "gradient":
            growth = {name: gradient.abs() for name, gradient in gradients.items()}
        else:
            growth = {name: random_scores(mask, self.seed, step, i) for i, (name, mask) in enumerate(masks.items())}
        within_gates = self.redistribution == "gate"
        return self.selection.moved(self.targets, masks, worth, growth, self.moves.share(step), within_gates)


class Run:
    """A training run, from its settings to its figures."""

    def __init__(self, settings: Settings, seed: int, train: Split) -> None:
        self.settings, self.train_split = settings, train
        torch.manual_seed(seed)
        self.model = Classifier(settings)
        self.order = torch.Generator().manual_seed(1000 + seed)
        self.total = math.ceil(len(train[0]) / 64) * settings.epochs
        self.kernels = {name: self.model.get_parameter(name) for name in (IH, HH)}
        self.optimizer = self._optimizer()
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._rate)
        self.engine = Engine("auto", lambda message: None)
        self.masks = first_masks(self.model, settings, seed, train)
        self.mover = Mover(settings, self.model, seed, self.total)
        self.step = 0
        if self.masks is not None:
            self._hold(self.masks)

    def _optimizer(self) -> torch.optim.AdamW:
        faster = (1 - self.settings.sparsity) ** -self.settings.kernel_rate
        others = [p for name, p in self.model.named_parameters() if name not in self.kernels]
        groups = [{"params": [kernel], "lr": self.settings.lr * faster} for kernel in self.kernels.values()]
        betas = self.settings.betas[0], self.settings.betas[1]
        groups.append({"params": others, "lr": self.settings.lr})
        return torch.optim.AdamW(groups, betas=betas, weight_decay=self.settings.weight_decay, foreach=True)

    def _rate(self, step: int) -> float:
        left = (self.total - step) / self.total
        return left if self.settings.decay == "linear" else 0.5 * (1 - math.cos(math.pi * left))

    def _hold(self, masks: Masks) -> None:
        self.masks, self.held = masks, masks.hold()
        masks.apply_()
        self.engine.update(masks)

    def train_epoch(self) -> None:
        images, labels = self.train_split
        for batch in torch.randperm(len(images), generator=self.order).split(64):
            self._train(images[batch], labels[batch])

    def _train(self, images: Tensor, labels: Tensor) -> None:
        gradients = self._backward(images, labels)
        if self.settings.clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.scheduler.step()
        self.step += 1
        new = None if self.masks is None else self.mover.masks(self.step, self.masks, gradients)
        if new is not None:
            self._replace(new)

    def _backward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Leave the gradients of kept weights; those of all weights are returned where they are needed."""
        dense = self.mover.needs_gradients(self.step + 1)
        if self.masks is not None:
            self.engine.begin_step([self.optimizer], dense)
        cross_entropy(self.model(images), labels, label_smoothing=self.settings.smoothing).backward()
        gradients = {}
        if dense:
            gradients = {name: kernel.grad.clone() for name, kernel in self.kernels.items() if kernel.grad is not None}
        if self.masks is not None:
            self.masks.apply_to_gradients_()  # where a layer computes dense they have some at removed weights
        return gradients

    def _replace(self, new: Masks) -> None:
        assert self.masks is not None
        self.engine.spread()
        for name, kernel in self.kernels.items():
            grown, stayed = new[name] & ~self.masks[name], new[name] & self.masks[name]
            for moment in ("exp_avg", "exp_avg_sq"):
                self.optimizer.state[kernel][moment].masked_fill_(grown, 0)
            if self.settings.fill:
                second = self.optimizer.state[kernel]["exp_avg_sq"]
                second[grown] = second[stayed].mean()
        self.held.remove()
        self._hold(new)

    @torch.no_grad()
    def validate(self, split: Split) -> tuple[float, float]:
        """Return error in % and loss."""
        self.engine.forget()
        self.model.eval()
        logits = torch.cat([self.model(images) for images in split[0].split(500)])
        self.model.train()
        error = 100 * (logits.argmax(1) != split[1]).float().mean()
        return float(error), float(cross_entropy(logits, split[1]))

    def densities(self, name: str, parts: int) -> list[float]:
        return [float((part != 0).float().mean()) for part in self.kernels[name].chunk(parts)]

    def close(self) -> None:
        self.engine.remove()
        if self.masks is not None:
            self.held.remove()


def train(settings: Settings, seed: int, splits: tuple[Split, Split]) -> Figures:
    """Train and validate."""
    start = time.perf_counter()
    run = Run(settings, seed, splits[0])
    validated = []
    for _ in range(settings.epochs):
        run.train_epoch()
        validated.append(run.validate(splits[1]))
    run.close()
    kept, total = (sum(f(kernel) for kernel in run.kernels.values()) for f in (_kept, Tensor.numel))
    return Figures(
        error=validated[-1][0],
        error_after_epoch_1=validated[0][0],
        loss=validated[-1][1],
        density=kept / total,
        input_density=run.densities(IH, 1)[0],
        gates_ih=[round(density, 4) for density in run.densities(IH, 3)],
        gates_hh=[round(density, 4) for density in run.densities(HH, 3)],
        seconds=round(time.perf_counter() - start, 1),
    )


def _kept(kernel: Tensor) -> int:
    return int(kernel.count_nonzero())
