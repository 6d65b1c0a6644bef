import pytest
import torch

from sparse_rnn.checkpoints import read
from sparse_rnn.engine import load
from sparse_rnn.engine.library import library

pytestmark = pytest.mark.skipif(library() is None, reason="The kernels are not built.")


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 1e-2), ("int8", 2e-2)])
def test_the_file_computes_what_the_checkpoint_does(run, capsys, jacobian, tmp_path, dtype, tolerance):
    output = tmp_path / "deeper" / "model.safetensors"
    run("export", "--checkpoint", str(jacobian), "--output", str(output), "--dtype", dtype)
    checkpoint, small = read(jacobian), load(output)
    assert small.rnn.density == pytest.approx(1 - checkpoint.masks.sparsity, abs=1e-9)
    assert small.rnn.dtype == getattr(torch, dtype)
    x = torch.rand(5, 8, 8)
    torch.testing.assert_close(small(x), checkpoint.model(x), atol=tolerance, rtol=tolerance)
    dense = sum(parameter.nbytes for parameter in checkpoint.model.rnn.parameters())
    assert capsys.readouterr().out.splitlines() == [
        f"rnn: SparseGRU of density {small.rnn.density:.2%}, {small.rnn.nbytes:,} bytes for {dense:,}",
        f"{output} ({output.stat().st_size:,} bytes)",
    ]
    assert list(output.parent.iterdir()) == [output]


def test_a_dense_model_is_refused(refused, dense, tmp_path):
    line = refused("export", "--checkpoint", str(dense), "--output", "model.safetensors")
    assert line.startswith(
        "error: SequenceClassifier has no layer that can be made sparse. rnn stays dense: at a density"
    )
    assert not list(tmp_path.iterdir())


def test_onnx_is_written(run, capsys, jacobian, tmp_path):
    pytest.importorskip("onnx", reason="onnx is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    run("export", "--checkpoint", str(jacobian), "--output", "model.onnx")
    x = torch.rand(5, 8, 8)
    [found] = runtime.InferenceSession("model.onnx").run(None, {"input": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), read(jacobian).model(x), atol=1e-5, rtol=1e-5)
    assert capsys.readouterr().out.startswith("model.onnx (")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--checkpoint", "nowhere.ckpt", "--output", "a"], "There is no checkpoint nowhere.ckpt."),
        (["--checkpoint", "nowhere.ckpt"], "the following arguments are required: --output"),
        (
            ["--checkpoint", "nowhere.ckpt", "--output", "a", "--dtype", "int8", "--format", "onnx"],
            "--dtype int8: ONNX files are dense and float32; leave --dtype out.",
        ),
        (
            ["--checkpoint", "nowhere.ckpt", "--output", "a.ONNX", "--format", "safetensors"],
            "--format safetensors is not what a.ONNX names: leave --format out, or ",
        ),
        (["--checkpoint", "nowhere.ckpt", "--output", "a.onnx", "--dtype", "int8"], "--dtype int8: ONNX files are"),
        (["--checkpoint", "a", "--output", "a", "--dtype", "int4"], "argument --dtype: invalid choice: 'int4'"),
    ],
)
def test_a_mistake_takes_one_line(refused, args, message):
    assert refused("export", *args).startswith(f"error: {message}")


def test_a_place_that_cannot_be_written_to_is_told(refused, jacobian, tmp_path):
    (tmp_path / "file").write_text("")
    line = refused("export", "--checkpoint", str(jacobian), "--output", "file/model.safetensors")
    assert line.startswith("error: --output file/model.safetensors cannot be written")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_is_refused_before_the_checkpoint_is_read(refused, tmp_path):
    line = refused("export", "--checkpoint", "nowhere.ckpt", "--output", str(tmp_path))
    assert line.startswith(f"error: --output {tmp_path} cannot be written, as it is a folder")


def test_help_says_what_it_does(run, capsys):
    with pytest.raises(SystemExit) as exit_:
        run("export", "--help")
    assert exit_.value.code == 0
    assert "--dtype {float32,bfloat16,int8}" in capsys.readouterr().out
