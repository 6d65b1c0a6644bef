"""What values of fewer bits do to a trained network: validated as it is, and as compact() makes it.

python -m sparse_rnn fit --config gru_mnist.yaml --trainer.max_epochs 2
python benchmarks/engine_quality.py --checkpoint lightning_logs/version_0/checkpoints/last.ckpt [--batches 10]
"""

import argparse
from pathlib import Path

import torch
from lightning.pytorch import Trainer
from machine import describe

from sparse_rnn.checkpoints import data_of, read
from sparse_rnn.engine import compact


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--batches", type=int, help="validation batches (default: all)")
    known = parser.parse_args()
    print(describe())
    checkpoint, results = read(known.checkpoint), {}
    models = {"dense": checkpoint.model}
    for dtype in (torch.float32, torch.bfloat16, torch.int8):
        models[str(dtype).removeprefix("torch.")] = compact(checkpoint.model, checkpoint.masks, dtype)
    for name, model in models.items():
        trainer = Trainer(
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=known.batches or 1.0,
        )
        [results[name]] = trainer.validate(model, data_of(checkpoint), verbose=False)
    print(f"{'':12}", *(f"{name:>10}" for name in results))
    for metric in results["dense"]:
        print(f"{metric:12}", *(f"{result[metric]:10.4f}" for result in results.values()))


if __name__ == "__main__":
    main()
