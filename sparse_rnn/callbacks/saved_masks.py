"""The masks of a callback wherever it is not in a fit: in checkpoints, in copies of it, in processes of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.utilities import rank_zero_warn

from sparse_rnn.callbacks.best import BestModels
from sparse_rnn.callbacks.returning import Return, from_bytes, to_bytes
from sparse_rnn.errors import UsageError
from sparse_rnn.lightning_compat import state_key
from sparse_rnn.sparsity.masks import Masks


class SavedMasks(Callback):
    """Save the masks of a callback, bit-packed, with where it stands, and take them up again.

    Args:
        kernels: Shell-style patterns of the names of the weights to prune; None for every recurrent kernel. Callbacks
            that prune different kernels of one model have states of their own in a checkpoint.

    Attributes:
        masks: The weights that are kept; None before the first fit.
        step: Number of training steps so far.
    """

    def __init__(self, kernels: list[str] | None) -> None:
        self.kernels = kernels
        self._masks: Masks | None = None
        self._step = 0
        self._saved: dict[str, Any] | None = None
        self._carried = False  # whether what is saved comes from another copy of this callback, not from a checkpoint
        self._return = Return()
        self._best = BestModels()
        self._made_with: dict[str, Any] = {}

    @property
    def masks(self) -> Masks | None:
        """The weights that are kept; None before the first fit."""
        self._take_returned()
        return self._masks

    @masks.setter
    def masks(self, masks: Masks | None) -> None:
        self._masks = masks

    @property
    def step(self) -> int:
        """Number of training steps so far."""
        self._take_returned()
        return self._step

    @step.setter
    def step(self, step: int) -> None:
        self._step = step

    def extra_state(self) -> dict[str, Any]:
        """Return what a subclass needs beside masks and step to go on in mid-schedule; tensors and primitives."""
        return {}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Take what :meth:`extra_state` gave; the fit may not have started yet."""

    def made_with(self) -> dict[str, Any]:
        """Return the settings, numbers and words, that are of no effect once the masks are chosen."""
        return {}

    @property
    def state_key(self) -> str:
        """Distinguishes callbacks that prune different kernels of one model in a checkpoint."""
        return state_key(self, kernels=self.kernels)

    def state_dict(self) -> dict[str, Any]:
        """Return the masks, packed to bits, and where the schedule stands; nothing before they are chosen."""
        packed = self._saved if self.masks is None else self.masks.state_dict()
        if packed is None:
            return {}
        state = {"masks": packed, "step": self.step, "extra": self.extra_state(), "best": dict(self._best.seen)}
        return state | {"made_with": self._made_with or self.made_with()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the masks of a checkpoint.

        Raises:
            UsageError: If it is no state that :meth:`state_dict` has returned.
        """
        _check_state(state_dict)
        self._saved, self._carried = state_dict["masks"], False
        self.step = state_dict.get("step", 0)  # masks that somebody packed by hand come without
        self._best.seen = dict(state_dict.get("best", {}))
        self._made_with = dict(state_dict.get("made_with", {}))
        if "extra" in state_dict:
            self.load_extra_state(state_dict["extra"])

    def __getstate__(self) -> dict[str, Any]:
        state = vars(self) | {"_return": (self._return.owner, self._return.path)}
        if self._masks is not None:
            # Bytes: processes are handed tensors as open files, which end with those that were made here.
            state |= {"_masks": None, "_saved": to_bytes(self._masks.state_dict()), "_carried": True}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._return = Return.of(*state["_return"])
        if isinstance(self._saved, bytes):
            self._saved = from_bytes(self._saved)
            self._masks = Masks.from_state_dict(self._saved, None)

    @property
    def _in_fit(self) -> bool:
        """Whether a fit of this process has the masks, so that none has left them elsewhere."""
        return False

    def _take_returned(self) -> None:
        """Take what the processes left that ``fit`` has started and that are over."""
        returned = None if self._in_fit else self._return.take()
        if returned is not None:
            self.load_state_dict(returned)
            self._masks, self._carried = Masks.from_state_dict(returned["masks"], None), True

    def _drop_of_another(self, pl_module: LightningModule) -> None:
        """Drop masks that another copy of this callback had, if the model has not their zeros."""
        if self._carried and not self._belongs_to(pl_module):
            self._saved = self._masks = None
        self._carried = False

    def _belongs_to(self, pl_module: LightningModule) -> bool:
        try:
            masks = Masks.from_state_dict(self._saved or {}, pl_module)
        except UsageError:
            return False
        return masks.removes and not any(pl_module.get_parameter(name)[~mask].any() for name, mask in masks.items())

    def _warn_of_settings(self) -> None:
        """Warn of settings that are others than those that the masks of a checkpoint were made with."""
        now = self.made_with()
        for name, before in self._made_with.items():
            if name in now and now[name] != before:
                rank_zero_warn(
                    f"{type(self).__name__}: {name}={now[name]} has no effect, as the masks come from a checkpoint, "
                    f"where they were chosen with {name}={before}: resume with that, or start a fit without ckpt_path."
                )


def _check_state(state: Mapping[str, Any]) -> None:
    """Refuse what no pruning callback has saved: it may come from anywhere."""
    masks, step = state.get("masks"), state.get("step", 0)
    if not isinstance(masks, Mapping) or not masks:
        raise UsageError("It has no masks.")
    if type(step) is not int or step < 0:
        raise UsageError(f"Its step {str(step)[:60]!r} is no whole number of at least 0.")
    if not all(isinstance(state.get(name, {}), Mapping) for name in ("best", "extra")):
        raise UsageError("Its best models, or its extra state, are no mapping.")
    Masks.from_state_dict(masks, None)
