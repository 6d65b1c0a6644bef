"""A test a private name of PyTorch: the one that an upgrade has taken away fails by its name."""

from typing import overload

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter

from sparse_rnn import torch_compat as compat


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="no oneDNN")
def test_linear_pointwise():
    x, weight = torch.randn(2, 3, 4), torch.randn(5, 4)
    assert torch.allclose(compat.onednn_linear(x, weight), x @ weight.t(), atol=1e-6)


def test_thnn_fused_lstm_cell():
    assert torch.ops.aten._thnn_fused_lstm_cell
    if not torch.cuda.is_available():
        return
    cell = nn.LSTMCell(3, 4, bias=False).cuda()
    x, h, c = (torch.randn(2, size, device="cuda") for size in (3, 4, 4))
    found = compat.fused_lstm_cell(x @ cell.weight_ih.t(), h @ cell.weight_hh.t(), c)[:2]
    torch.testing.assert_close(found, cell(x, (h, c)))


@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
def test_backward_of_sigmoid_and_tanh(name):
    x = torch.randn(5, requires_grad=True)
    value = getattr(torch, name)(x)
    gradient, out = torch.randn(5), torch.empty(5)
    [expected] = torch.autograd.grad(value, x, gradient)
    getattr(compat, f"{name}_backward")(gradient, value.detach(), out=out)
    assert torch.allclose(out, expected)
    assert torch.allclose(compat.tanh_backward(gradient, torch.zeros(5)), gradient)


def test_pytree():
    packed = pack_sequence([torch.ones(2), torch.ones(1)])
    batch = {"x": [torch.ones(1), 2], "y": (packed,)}
    leaves = compat.tree_leaves(batch, is_leaf=lambda leaf: isinstance(leaf, PackedSequence))
    assert leaves[1:] == [2, packed]
    assert compat.tree_map_only(int, lambda n: n + 1, {"a": [1, "b"]}) == {"a": [2, "b"]}
    assert compat.tree_map(lambda n: n + 1, {"a": [1]}) == {"a": [2]}


def test_is_exporting():
    found = []

    class Asking(nn.Module):
        def forward(self, x):
            found.append(compat.is_exporting())
            return x + 1

    module = Asking()
    module(torch.ones(1))
    torch.export.export(module, (torch.ones(1),), strict=False)
    assert not found[0]
    assert all(found[1:])


def choose(x: torch.Tensor, flag: bool) -> torch.Tensor:
    return x + 1 if flag else x


def test_scripted_functions_are_silent_and_hold_what_they_choose_by():
    function = compat.scripted(choose)
    assert isinstance(function, torch.jit.ScriptFunction)
    assert [function(torch.ones(1), flag).item() for flag in (True, False)] == [2, 1]


class TwoSignatures(nn.Module):
    @overload
    @compat.scripted_overload
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pass

    @overload
    @compat.scripted_overload
    def forward(self, x: list[torch.Tensor]) -> list[torch.Tensor]:
        pass

    def forward(self, x):
        return x


class Both(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.part = TwoSignatures()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.part(x) + self.part([x])[0]


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_overload_method():
    assert torch.jit.script(Both())(torch.ones(1)).item() == 2


def test_the_attributes_of_a_module():
    module = nn.Linear(1, 1)
    weight, before = module.weight, dict(compat.own_attributes(module))
    module.note = 1
    module.other = nn.Linear(1, 1)
    compat.set_own_attributes(module, before)
    assert not hasattr(module, "note")
    assert module.weight is weight


@pytest.mark.parametrize("had", [True, False])
def test_an_attribute_is_as_it_was_afterwards_even_after_an_error(had):
    module = nn.Linear(1, 1)
    if had:
        module.forward = before = lambda x: "its own"
    with pytest.raises(TypeError), compat.own_attribute_set(module, "forward", lambda x: x):
        module()
    with compat.own_attribute_set(module, "forward", lambda x: "other"):
        assert module(torch.ones(1)) == "other"
    assert ("forward" in vars(module)) == had
    assert not had or module.forward is before


def test_a_copy_of_a_loader_has_workers_of_its_own():
    loader = DataLoader([1, 2, 3], num_workers=1, persistent_workers=True)
    first = iter(loader)
    assert [batch.item() for batch in compat.copied_loader(loader)] == [1, 2, 3]
    assert loader._iterator is first
    assert [batch.item() for batch in first] == [1, 2, 3]
    assert not compat.copied_loader(loader).persistent_workers


def test_who_iterates_as_torch_does():
    class Renamed(DataLoader):
        pass

    class Own(DataLoader):
        def __iter__(self):
            return iter([1])

    class OwnIterator(DataLoader):
        def _get_iterator(self):
            return iter([1])

    found = [compat.iterates_as_torch_does(kind([1])) for kind in (DataLoader, Renamed, Own, OwnIterator, list)]
    assert found == [True, True, False, False, False]


def test_get_file_writer(tmp_path):
    from torch.utils.tensorboard.summary import scalar

    with SummaryWriter(tmp_path) as board:
        compat.add_summary(board, scalar("loss", 1.0))
    [file] = tmp_path.iterdir()
    assert b"loss" in file.read_bytes()


def test_version():
    weight = torch.zeros(2)
    before = compat.version_of(weight)
    weight.data.add_(1)  # not counted
    assert compat.version_of(weight) == before
    weight[0].add_(1)
    assert compat.version_of(weight) == before + 1
    with torch.inference_mode():
        assert compat.version_of(torch.zeros(2)) == -1


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # of the first torch.func.jvp
def test_current_level():
    assert not compat.differentiates_forward()
    with torch.autograd.forward_ad.dual_level():
        assert compat.differentiates_forward()
    assert torch.func.jacfwd(lambda x: x * compat.differentiates_forward())(torch.ones(2)).equal(torch.eye(2))
    assert torch.func.grad(lambda x: x * compat.differentiates_forward())(torch.ones(())) == 0


def test_peek_interpreter_stack():
    seen, plain = [], torch.ones(2)

    def look(x):
        seen.append(compat.is_transforming())
        return x.sum() + plain.sum()

    look(torch.ones(2)), torch.func.grad(look)(torch.ones(2)), torch.func.vmap(look)(torch.ones(2, 2))
    assert seen == [False, True, True]


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_who_just_calls():
    seen = []

    def look(x):
        seen.append(compat.plain_call())
        return x + 1

    look(torch.ones(2)), torch.jit.trace(look, torch.ones(2), check_trace=False)
    assert seen == [True, False]


@pytest.mark.parametrize("build", [lambda: nn.GRU(2, 3, 2), lambda: nn.Linear(2, 3)])
def test_parameters_stand_aside_and_come_back(build):
    module, twin = build(), build()
    before = dict(module.named_parameters())
    name = next(iter(before))
    other, x = torch.ones_like(before[name]), torch.ones(1, 2)
    twin.load_state_dict(before | {name: other})

    def fail_inside():
        with compat.parameters_replaced(module, {name: other}):
            assert getattr(module, name) is other
            pairs = zip(compat.tree_leaves(module(x)), compat.tree_leaves(twin(x)), strict=True)
            assert all(torch.equal(*pair) for pair in pairs)
            raise KeyError

    with pytest.raises(KeyError):
        fail_inside()
    after = dict(module.named_parameters())
    assert list(after) == list(before)
    assert all(after[key] is before[key] for key in before)


def test_what_a_recurrent_layer_of_torch_lists_its_weights_in():
    gru = nn.GRU(2, 3)
    assert gru._flat_weights_names == list(dict(gru.named_parameters()))
    assert all(a is b for a, b in zip(gru._flat_weights, gru.parameters(), strict=True))
    assert all(a() is b for a, b in zip(gru._flat_weight_refs, gru.parameters(), strict=True))
