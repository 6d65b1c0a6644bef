"""ONNX files of dense models, with the zeros in them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparse_rnn.engine.compact import replaced
from sparse_rnn.errors import UsageError, one_line
from sparse_rnn.paths import check_local
from sparse_rnn.recurrent.peephole import PeepholeLSTM
from sparse_rnn.recurrent.reset_before import ResetBeforeGRU
from sparse_rnn.torch_compat import tree_leaves
from sparse_rnn.writing import written_whole

_TOLERANCE = 1e-4


def export_onnx(model: nn.Module, example: Tensor, path: str | os.PathLike[str]) -> None:
    """Write what a model's ``forward`` computes as an ONNX file, of any batch and any number of steps.

    ONNX Runtime must compute the same as the model, on the example and on a shorter one, before the file is there. It
    gains neither speed nor memory from the zeros.

    Args:
        model: The dense model, float32 on the CPU.
        example: What to call it with, [batch, time, ...] or [time, batch, ...].
        path: The file.

    Raises:
        UsageError: If onnx or onnxruntime is not installed, the model cannot be written or computes something else
            there, or the file cannot be written.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     export_onnx(nn.GRU(3, 4), torch.randn(5, 2, 3), f"{folder}/gru.onnx")  # doctest: +SKIP
    """
    runtime = _onnxruntime()
    kind = type(model).__name__
    if any(isinstance(module, PeepholeLSTM) for module in model.modules()):
        raise UsageError(f"{kind} has a PeepholeLSTM, which ONNX has no operator for: take --format safetensors.")
    if example.dim() < 2:
        raise UsageError(f"The example of {kind} has shape {list(example.shape)}; it must have a batch and steps.")
    check_local(path)
    path, model = Path(path), model.eval()
    in_front = [module for module in model.modules() if isinstance(module, ResetBeforeGRU)]
    known = replaced(model, {layer: _as_torch(layer) for layer in in_front}) if in_front else model
    with written_whole(path) as unfinished, warnings.catch_warnings():
        # Of the exporter: that it is deprecated (its successor unrolls or refuses some layers), and of fixed batches,
        # which is what is tried out below.
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                known,
                (example,),
                unfinished,
                input_names=["input"],
                dynamic_axes={"input": {0: "first", 1: "second"}},
                dynamo=False,
            )
        except RuntimeError as error:
            raise UsageError(f"torch.onnx cannot write {kind}: {one_line(str(error))[:300]}") from error
        if in_front:
            _put_reset_gates_in_front(unfinished, in_front)
        session = runtime.InferenceSession(str(unfinished))
        for inputs in (example, example[: max(1, len(example) // 2), : max(1, example.shape[1] // 2)]):
            _check_agreement(model, session, inputs)


def onnx_session(path: str | os.PathLike[str]) -> Any:
    """Open an ONNX file in ONNX Runtime, with as many threads as PyTorch has.

    Raises:
        UsageError: If onnxruntime is not installed.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     export_onnx(nn.GRU(3, 4), torch.randn(5, 2, 3), f"{folder}/gru.onnx")  # doctest: +SKIP
        ...     onnx_session(f"{folder}/gru.onnx").run(None, {"input": np.zeros((5, 2, 3))})  # doctest: +SKIP
    """
    check_local(path)
    runtime = _onnxruntime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return runtime.InferenceSession(str(path), options)


def _as_torch(layer: ResetBeforeGRU) -> nn.GRU:
    """Make the layer of the same weights that the exporter knows, whose reset gate is behind the product."""
    names = ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional")
    gru = nn.GRU(**{name: getattr(layer, name) for name in names})
    gru.load_state_dict(layer.state_dict())
    return gru.train(layer.training)


def _put_reset_gates_in_front(path: Path, layers: Sequence[ResetBeforeGRU]) -> None:
    """Give layers in a file the other one of ONNX's two conventions; they are told by their weights."""
    onnx = import_module("onnx")
    written = onnx.load(path)
    kernels = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in written.graph.initializer}
    candidates = {
        layer.get_parameter(f"weight_hh_l{depth}").detach()[2 * layer.hidden_size :].numpy().tobytes()
        for layer in layers
        for depth in range(layer.num_layers)
    }
    for node in (node for node in written.graph.node if node.op_type == "GRU"):
        kernel = kernels[node.input[2]]  # [directions, 3H, H], the candidate's rows last
        if kernel[0, -kernel.shape[2] :].tobytes() in candidates:
            [convention] = (attribute for attribute in node.attribute if attribute.name == "linear_before_reset")
            convention.i = 0
    onnx.save(written, path)


def _onnxruntime() -> Any:
    try:
        import_module("onnx")
        return import_module("onnxruntime")
    except ImportError as error:
        raise UsageError(f"ONNX files need {error.name}: pip install 'sparse-rnn[onnx]'.") from error


def _check_agreement(model: nn.Module, session: Any, inputs: Tensor) -> None:
    with torch.no_grad():
        wanted = [leaf for leaf in tree_leaves(model(inputs)) if isinstance(leaf, Tensor)]
    try:
        found = session.run(None, {"input": inputs.numpy()})
        difference = max(
            float((torch.from_numpy(own) - other).abs().max()) for own, other in zip(found, wanted, strict=True)
        )
    except Exception as error:  # ONNX Runtime's own have no class in common
        difference, reason = float("nan"), one_line(str(error))[:300]
    else:
        reason = f"its outputs differ by {difference:.2g}"
    if not difference <= _TOLERANCE:
        kind, shape = type(model).__name__, list(inputs.shape)
        raise UsageError(f"ONNX Runtime does not compute what {kind} does on an input {shape}: {reason}.")
