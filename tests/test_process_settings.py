"""Settings of the whole process: in force as long as any thread asks for them, and then as they were."""

import sys
import warnings
from pathlib import Path

import pytest
import torch

import sparse_rnn
from sparse_rnn.process_settings import chunks_apart, csr_in_beta, cudnn_off, eager, math_attention


def test_compiled_models_run_as_they_were_written():
    import torch._dynamo

    assert "torch._dynamo" in sys.modules  # under the name that tells that the compiler is loaded
    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    double = torch.compile(lambda x: 2 * x, backend=backend)
    with eager():
        assert double(torch.ones(1)) == 2
    assert not compiled
    assert double(torch.ones(1)) == 2
    assert compiled


SETTINGS = {
    "cuDNN": (cudnn_off, lambda: torch.backends.cudnn.enabled),
    "attention": (math_attention, lambda: torch.backends.cuda.flash_sdp_enabled()),
    "chunks": (chunks_apart, lambda: list(warnings.filters)),
    "compressed rows": (csr_in_beta, lambda: list(warnings.filters)),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_what_overlaps_leaves_the_setting_as_it_was(name):
    """As two threads overlap: the first to come is the first to leave."""
    setting, now = SETTINGS[name]
    before = now()
    first, second = setting(), setting()
    first.__enter__()
    changed = now()
    assert changed != before
    second.__enter__()
    first.__exit__(None, None, None)
    assert now() == changed
    second.__exit__(None, None, None)
    assert now() == before


def test_an_error_inside_ends_it():
    before = torch.backends.cudnn.enabled
    with pytest.raises(KeyError), cudnn_off():
        raise KeyError
    assert torch.backends.cudnn.enabled is before


def test_settings_are_changed_here_alone():
    """A context manager of the process that is entered elsewhere is undone by the threads of others."""
    of_the_process = ("cudnn.flags(", "sdpa_kernel(", "set_stance(", "set_default_dtype(", "set_num_threads(")
    found = [
        (path.name, word)
        for path in sorted(Path(sparse_rnn.__file__).parent.rglob("*.py"))
        for word in of_the_process
        if word in path.read_text() and path.name != "process_settings.py"
    ]
    assert not found
