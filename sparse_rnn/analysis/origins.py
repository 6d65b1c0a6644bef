"""How runs came about, as far as they have saved it, and what speaks against comparing them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence

from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from sparse_rnn.analysis.runs import Trained
from sparse_rnn.config_files import section
from sparse_rnn.errors import UsageError
from sparse_rnn.run_configs import recorded_in, trainer_of
from sparse_rnn.scores.criterion import criterion_named


def origins(runs: Iterable[Trained]) -> list[str]:
    """Name seeds, versions and machine of runs: all of them of a comparison's, Lightning's version of any other's.

    Args:
        runs: Checkpoints of the runs.

    Returns:
        A line for the runs that differ in their seeds alone; none for those that have saved nothing of it.
    """
    seeds: dict[str, list[str]] = {}
    for trained in runs:
        seed = trained.config.get("seed_everything")
        found = seeds.setdefault(_made_by(trained), [])
        found += [] if seed is None or str(seed) in found else [str(seed)]
    said = [(f"seed{'s' * (len(found) > 1)} {', '.join(found)}" if found else "", by) for by, found in seeds.items()]
    return [", ".join(filter(None, parts)) for parts in said if any(parts)]


def _made_by(trained: Trained) -> str:
    if name := recorded_in(trained.config):
        try:
            return str(json.loads((trained.folder / name).read_text(encoding="utf-8"))["made_by"])
        except (OSError, ValueError, KeyError, TypeError):  # moved away, or not a recorder's
            pass
    found = re.match(r"# \S*lightning\S*==(\S+)", trained.config_text)
    return f"lightning {found[1]}" if found else ""


def unequal_steps(runs: Sequence[Trained]) -> str | None:
    """Say, in one sentence, that the last checkpoints of some runs are of different steps; None where they are not.

    Args:
        runs: The checkpoints; earlier ones of the same run are there to be compared with it.
    """
    last: dict[str, int] = {}
    for trained in runs:
        last[trained.series] = max(trained.step, last.get(trained.series, 0))
    if len(set(last.values())) < 2:
        return None
    steps = "; ".join(f"{name}: {step:,}" for name, step in last.items())
    return f"These checkpoints are of different steps, so what differs may be the training, not the pruning. {steps}."


def scoring_samples(trained: Trained) -> int | None:
    """Return on how many training samples a criterion chose the weights at once; None where on none that is told."""
    _, options = section(trained.config, "pruning")
    path = section(options, "criterion")[0] or str(options.get("criterion"))
    try:
        reads = criterion_named(path.rpartition(".")[2]).needs_data
    except (UsageError, TypeError):  # one of the user's
        reads = True
    return options.get("num_samples") if reads else None


def validation_samples(trained: Trained, data: LightningDataModule) -> int | None:
    """Return how many samples a validation is of; None where that is no number of samples, as of running text.

    Args:
        trained: A checkpoint of the run.
        data: Its data module, set up.
    """
    limit = trainer_of(trained.config).get("limit_val_batches")
    if not (limit is None or (isinstance(limit, float) and limit == 1)):  # 1 is a batch, 1.0 are all
        return None
    try:
        return len(data.val_dataloader().dataset)
    except (AttributeError, TypeError):  # several loaders, or one of running text; a stream has no length
        return None
    except MisconfigurationException:  # the data have no validation
        return None
