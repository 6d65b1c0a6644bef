"""CPU seconds of an epoch of MNIST at batch 64, nothing trained: ``python benchmarks/loader.py``."""

import statistics
import time

from sparse_rnn.data import DataError, SequentialMNIST

EPOCHS = 7


def cpu_seconds(data: SequentialMNIST) -> float:
    loader = data.train_dataloader()
    start = time.process_time()
    for _ in loader:
        pass
    return time.process_time() - start


def main() -> None:
    modules = {order: SequentialMNIST(order=order, split="paper") for order in ("rows", "permuted")}
    for data in modules.values():
        data.setup()
    times = [{order: cpu_seconds(data) for order, data in modules.items()} for _ in range(EPOCHS)]
    for order, data in modules.items():
        median = statistics.median(run[order] for run in times)
        print(f"{order:8} {len(data.splits.train):,} images: {median:.3f} s of CPU an epoch (median of {EPOCHS})")


if __name__ == "__main__":
    try:
        main()
    except DataError as error:
        raise SystemExit(f"needs MNIST: {error}") from None
