"""What masks leave of the weights: printed, in TensorBoard as text, and to loggers as numbers."""

from __future__ import annotations

from textwrap import indent

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from sparse_rnn.sparsity.masks import Masks
from sparse_rnn.sparsity.statistics import statistics, table


@rank_zero_only
def tell_left(trainer: Trainer, masks: Masks, step: int, by: str, with_table: bool) -> None:
    """Print what is left of the weights, and write it into TensorBoard.

    Args:
        trainer: The trainer.
        masks: The weights that are kept.
        step: Number of training steps so far.
        by: Name of what has removed the others.
        with_table: Whether the numbers of each kernel are printed too.
    """
    text = table(statistics(masks))
    kept = f"{by}: {masks.kept:,} of {masks.total:,} weights kept"
    rank_zero_info(f"{kept}\n{text}" if with_table else kept)
    for logger in trainer.loggers:
        add_text = getattr(getattr(logger, "experiment", None), "add_text", None)
        if add_text is not None:  # TensorBoard reads Markdown, where four spaces keep a table as it is
            add_text("sparsity", indent(text, "    "), global_step=step)


@rank_zero_only
def log_left(trainer: Trainer, masks: Masks, step: int) -> None:
    """Log the sparsity of all kernels together, and of each gate of each.

    Args:
        trainer: The trainer.
        masks: The weights that are kept.
        step: Number of training steps so far.
    """
    if not trainer.loggers:
        return
    rows = statistics(masks)
    metrics = {f"sparsity/{row.kernel}/{row.gate}": row.sparsity for row in rows}
    for logger in trainer.loggers:
        logger.log_metrics({"sparsity/all": masks.sparsity, **metrics}, step=step)
