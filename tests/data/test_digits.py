import subprocess
import sys

import pytest
import torch
from sklearn.datasets import load_digits

from sparse_rnn.data import SequentialDigits


def test_the_scans_are_divided_whole():
    parts = [split.tensors for split in SequentialDigits().splits]
    train, val, test = ([*zip(x.flatten(1).tolist(), y.tolist(), strict=True)] for x, y in parts)
    assert (len(train), len(val), len(test)) == (1257, 270, 270)
    scans = load_digits()
    assert sorted(train + val + test) == sorted(zip((scans.data / 16).tolist(), scans.target.tolist(), strict=True))


def test_batches_are_eight_rows_of_eight_pixels():
    data = SequentialDigits(batch_size=7)
    x, y = next(iter(data.train_dataloader()))
    assert (x.shape, x.dtype, y.shape, y.dtype) == ((7, 8, 8), torch.float32, (7,), torch.int64)
    assert (data.input_size, data.num_classes) == (8, 10)


@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_pixels_lie_between_zero_and_scale(scale):
    x = torch.cat([split.tensors[0] for split in SequentialDigits(scale=scale).splits])
    assert x.min() == 0
    assert x.max().item() == pytest.approx(scale)


@pytest.mark.slow
def test_importing_the_package_adds_nothing_heavy_to_lightning():
    code = """if True:
        import sys, lightning.pytorch
        before = {*sys.modules}
        import sparse_rnn.data
        print(*{*sys.modules} - before)"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    added = set(result.stdout.split())
    assert "sparse_rnn.data.mnist" in added
    assert not added & {"sklearn", "pooch", "requests", "matplotlib", "tensorboard"}
