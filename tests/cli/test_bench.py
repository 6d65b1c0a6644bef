"""``bench``: a line for each layer and batch size."""

import pytest
import torch

from sparse_rnn.engine.library import library

pytestmark = pytest.mark.skipif(library() is None, reason="The kernels are not built.")


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_checkpoint_is_timed(run, capsys, jacobian, dtype):
    run("bench", "--checkpoint", str(jacobian), "--batch", "1", "5", "--seconds", "0", "--steps", "3", "--dtype", dtype)
    first, head, *rows = capsys.readouterr().out.splitlines()
    assert first.startswith("rnn: density ")
    assert first.endswith(f"{torch.get_num_threads()} threads")
    assert head.split()[:2] == ["layer", "batch"]
    assert [row.split()[:2] for row in rows] == [["rnn", "1"], ["rnn", "5"]]
    assert all(float(row.split()[-1]) < (1e-5 if dtype == "float32" else 0.05) for row in rows)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--checkpoint", "nowhere.ckpt"], "There is no checkpoint nowhere.ckpt."),
        ([], "the following arguments are required: --checkpoint"),
        (["--checkpoint", "a", "--batch", "0"], "argument --batch: give a whole number from 1 on, not '0'"),
        (["--checkpoint", "a", "--seconds", "inf"], "argument --seconds: give a finite number from 0 on, not 'inf'"),
        (["--checkpoint", "a", "--steps", "1000000"], "argument --steps: give a whole number from 1 to 100000, not "),
    ],
)
def test_a_mistake_takes_one_line(refused, args, message):
    assert refused("bench", *args).startswith(f"error: {message}")
