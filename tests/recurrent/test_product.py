"""Products against float64, for every layout that reaches oneDNN or the BLAS."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse_rnn.recurrent.product import add, add_product_, onednn_multiplies, product, without_autocast

LAYOUTS = {
    "rows": lambda b: b.contiguous(),
    "columns": lambda b: b.t().contiguous().t(),
    "slice of rows": lambda b: torch.cat([b, b], dim=1)[:, : b.shape[1]],
    "slice of columns": lambda b: torch.cat([b.t(), b.t()], dim=1)[:, : b.shape[0]].t(),
    "every other": lambda b: b.repeat_interleave(2, 1)[:, ::2],
}


@pytest.fixture(params=[True, False], ids=["oneDNN", "BLAS"])
def _either(request):
    with torch.backends.mkldnn.flags(enabled=request.param):
        yield


pytestmark = pytest.mark.filterwarnings("ignore:TF32 acceleration")  # Raised by flags(), of Intel GPUs.


@pytest.mark.usefixtures("_either")
@pytest.mark.parametrize("leading", [(), (4,), (2, 3), (0,)])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_product_is_the_product(dtype, layout, leading):
    torch.manual_seed(0)
    a, b = torch.randn(*leading, 5, 6), torch.randn(6, 7)
    b_laid_out = LAYOUTS[layout](b.to(dtype))
    assert torch.equal(b_laid_out, b.to(dtype))
    actual = product(a.to(dtype), b_laid_out)
    assert actual.dtype == dtype
    torch.testing.assert_close(actual.double(), a.double() @ b.double(), rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("_either")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_product_is_added_in_place_to_a_part_of_a_tensor_alone(dtype, layout):
    torch.manual_seed(0)
    whole, a, b = torch.randn(9, 8).to(dtype), torch.randn(5, 6).to(dtype), torch.randn(6, 7).to(dtype)
    expected = whole.double()
    expected[2:7, 1:] += a.double() @ b.double()
    add_product_(whole[2:7, 1:], a, LAYOUTS[layout](b))
    torch.testing.assert_close(whole.double(), expected, rtol=1e-5, atol=1e-5)


@settings(max_examples=50)
@given(st.integers(0, 9), st.integers(1, 9), st.integers(1, 9), st.booleans())
def test_every_size_down_to_none(rows, inner, columns, transposed):
    torch.manual_seed(0)
    a = torch.randn(inner, rows).t() if transposed else torch.randn(rows, inner)
    b = torch.randn(inner, columns)
    torch.testing.assert_close(product(a, b).double(), a.double() @ b.double(), rtol=1e-5, atol=1e-5)


def test_factors_stay_what_they_are():
    a, b = torch.randn(3, 4), torch.randn(4, 5)
    before = a.clone(), b.clone()
    product(a, b)
    add_product_(torch.zeros(3, 5), a, b)
    assert torch.equal(a, before[0])
    assert torch.equal(b, before[1])


def test_a_sum_of_tensors_leaves_its_terms_alone():
    a, b = torch.ones(2), torch.ones(2)
    assert add([a, b, b]).tolist() == [3, 3]
    assert add(iter([a])).tolist() == a.tolist() == [1, 1]


def test_only_single_precision_on_a_cpu_goes_to_onednn():
    available = torch.backends.mkldnn.is_available()
    assert onednn_multiplies(torch.zeros(1)) == available
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        assert not onednn_multiplies(torch.zeros(1, dtype=dtype))
    assert not onednn_multiplies(torch.zeros(1, device="meta"))
    with torch.backends.mkldnn.flags(enabled=False):
        assert not onednn_multiplies(torch.zeros(1))


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="needs oneDNN")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_onednn_gets_no_weight_that_would_take_its_slow_loop(layout, monkeypatch):
    given = []

    def watching(a, weight):
        given.append(weight)
        return a @ weight.t()

    monkeypatch.setattr("sparse_rnn.recurrent.product.onednn_linear", watching)
    product(torch.randn(5, 6), LAYOUTS[layout](torch.randn(6, 7)))
    [weight] = given
    assert weight.is_contiguous() or weight.t().is_contiguous()


def test_autocast_is_left():
    with torch.autocast("cpu", torch.bfloat16), without_autocast("cpu"):
        assert not torch.is_autocast_enabled("cpu")
    with without_autocast("meta"):
        pass
