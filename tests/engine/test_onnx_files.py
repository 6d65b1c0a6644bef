import sys

import pytest
import torch
from torch import nn

from sparse_rnn.engine.onnx_files import export_onnx
from sparse_rnn.errors import UsageError
from sparse_rnn.modules import LanguageModel, SequenceClassifier
from sparse_rnn.recurrent import ResetBeforeGRU


@pytest.fixture
def onnx():
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    return pytest.importorskip("onnx", reason="onnx is not installed")


def run(path, x):
    import onnxruntime

    return torch.from_numpy(onnxruntime.InferenceSession(str(path)).run(None, {"input": x.numpy()})[0])


def sparsify(model):
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "weight_" in name:
            parameter.data.mul_(torch.rand_like(parameter) < 0.1)
    return model.eval()


@pytest.mark.parametrize(
    "options",
    [
        {"cell": "rnn", "nonlinearity": "relu"},
        {"cell": "gru", "num_layers": 2},
        {"cell": "lstm", "bidirectional": True},
    ],
    ids=lambda options: options["cell"],
)
def test_onnx_runtime_computes_the_same_on_any_batch_and_length(onnx, tmp_path, options):
    model = sparsify(SequenceClassifier(8, 10, hidden_size=20, **options))
    export_onnx(model, torch.randn(2, 9, 8), tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    for shape in ((2, 9, 8), (5, 17, 8), (1, 1, 8)):
        x = torch.randn(shape)
        torch.testing.assert_close(run(tmp_path / "model.onnx", x), model(x), atol=1e-5, rtol=1e-5)


def test_the_zeros_are_in_the_file(onnx, tmp_path):
    model = sparsify(nn.LSTM(8, 20))
    export_onnx(model, torch.randn(9, 2, 8), tmp_path / "model.onnx")
    weights = [onnx.numpy_helper.to_array(w) for w in onnx.load(tmp_path / "model.onnx").graph.initializer]
    kept = sorted(int((w != 0).sum()) for w in weights if w.ndim == 3)
    assert kept == sorted(int(p.count_nonzero()) for p in (model.weight_ih_l0, model.weight_hh_l0))


def test_the_reset_gate_acts_after_the_product_as_in_torch(onnx, tmp_path):
    """ONNX has both conventions; with the other one the outputs differ."""
    model, path = sparsify(nn.GRU(8, 20)), tmp_path / "model.onnx"
    model.bias_hh_l0.data.fill_(1.0)
    export_onnx(model, torch.randn(9, 2, 8), path)
    graph = onnx.load(path)
    [convention] = [a for node in graph.graph.node for a in node.attribute if a.name == "linear_before_reset"]
    assert convention.i == 1
    x = torch.randn(4, 3, 8)
    torch.testing.assert_close(run(path, x), model(x)[0], atol=1e-5, rtol=1e-5)
    convention.i = 0
    onnx.save(graph, path)
    assert not torch.allclose(run(path, x), model(x)[0], atol=1e-3)


class Mixed(nn.Module):
    """Both conventions in one model, several layers and directions, one of them inside another module."""

    def __init__(self):
        super().__init__()
        self.first = nn.GRU(8, 5, batch_first=True)
        self.inner = nn.ModuleDict({"gru": ResetBeforeGRU(5, 6, 2, batch_first=True, bidirectional=True)})

    def forward(self, x):
        return self.inner["gru"](self.first(x)[0])[0]


@pytest.mark.parametrize(
    "build",
    [lambda: SequenceClassifier(8, 10, "gru_reset_before", 20), lambda: ResetBeforeGRU(8, 20, bias=False), Mixed],
    ids=["classifier", "alone", "mixed"],
)
def test_a_reset_gate_in_front_is_written_in_the_other_convention(onnx, tmp_path, build):
    model, path = sparsify(build()), tmp_path / "model.onnx"
    before = {name: value.clone() for name, value in model.state_dict().items()}
    export_onnx(model, torch.randn(2, 9, 8), path)
    x = torch.randn(4, 3, 8)
    output = model(x)
    torch.testing.assert_close(run(path, x), output[0] if isinstance(output, tuple) else output, atol=1e-5, rtol=1e-5)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_language_model_is_written_with_its_states(onnx, tmp_path):
    model = sparsify(LanguageModel(50, embedding_size=12, hidden_size=20, cell="lstm", num_layers=2))
    export_onnx(model, torch.randint(50, (2, 9)), tmp_path / "model.onnx")
    x = torch.randint(50, (3, 5))
    torch.testing.assert_close(run(tmp_path / "model.onnx", x), model(x)[0], atol=1e-5, rtol=1e-5)


class LastSteps(nn.Module):
    """Its loop has as many rounds in a file as in the example."""

    def forward(self, x):
        total = x[0]
        for step in x[1:]:
            total = torch.tanh(total + step)
        return total


def test_what_computes_something_else_there_is_refused_and_not_left(onnx, tmp_path):
    with pytest.raises(UsageError, match=r"ONNX Runtime does not compute what LastSteps does on an input \[4, 1, 8\]"):
        export_onnx(LastSteps(), torch.randn(9, 2, 8), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_is_told(onnx, tmp_path):
    class Own(nn.Module):
        def forward(self, x):
            return torch.linalg.eigvals(x)

    with pytest.raises(UsageError, match=r"torch\.onnx cannot write Own: "):
        export_onnx(Own(), torch.randn(9, 2, 2), tmp_path / "model.onnx")
    with pytest.raises(UsageError, match="has a PeepholeLSTM, which ONNX has no operator for"):
        export_onnx(SequenceClassifier(8, 10, "peephole_lstm", 20), torch.randn(2, 9, 8), tmp_path / "model.onnx")
    with pytest.raises(UsageError, match=r"The example of Linear has shape \[3\]"):
        export_onnx(nn.Linear(3, 4), torch.randn(3), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_without_onnx_a_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UsageError, match=r"ONNX files need onnx.*: pip install 'sparse-rnn\[onnx\]'"):
        export_onnx(nn.GRU(3, 4), torch.randn(5, 2, 3), tmp_path / "model.onnx")
