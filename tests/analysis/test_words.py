import math
import re

from sparse_rnn.analysis.words import NEAR, side_by_side


def test_every_number_has_its_unit_and_one_format():
    rows = [
        {
            "checkpoint": "a <b> 95 %",
            "sparsity": 0.9512,
            "connections": 12345,
            "χ": 0.123456,
            NEAR: 0.5,
            "val/error": 2,
        },
        {"checkpoint": "dense", "sparsity": 0.0, "connections": 7, "χ": math.nan},
    ]
    lines = side_by_side(rows).splitlines()[1:-1]
    shown = [re.findall("<td>(.*?)</td>", line) for line in lines]
    assert shown == [["a &lt;b&gt; 95\u00a0%", "dense"], ["95.1", "0.0"], ["12,345", "7"], ["0.1235", "–"],
                     ["50.0", "–"], ["2", "–"]]  # fmt: skip
    heads = [re.findall("<th.*?>(.*?)</th>", line)[0] for line in lines]
    assert heads[1].startswith("sparsity (%)")
    assert heads[-1] == "val/error (%)"
    assert "temporal Jacobian" in heads[3]


def row(name, *values):
    found = side_by_side([{name: value} for value in values])
    return re.findall("<td>(.*?)</td>", found)


def test_numbers_of_a_line_are_written_alike():
    assert row("I/R", 0.08, 0.37991) == ["0.0800", "0.3799"]
    assert row("val/error", 7.037, 23.7, 41.478) == ["7.04", "23.70", "41.48"]
    assert row("val/ppl", 12345.6, 99.96, math.inf) == ["12346", "100", "inf"]
    assert row("train/loss", 0.0, 0.0) == ["0.0", "0.0"]
    assert row("train/loss", 0.5, 3e-7, -0.25) == ["0.5000", "3.0e-07", "-0.2500"]
    assert row("val/loss", 2.5e-5, 1e-6) == ["2.500e-05", "1.000e-06"]


def test_long_names_break_where_they_have_parts_and_nowhere_else():
    [shown] = row("checkpoint", "JacobianSpectrum 95 %, a/long_name-step=120.ckpt")
    assert shown.split("<wbr>") == ["JacobianSpectrum 95\u00a0%, a/", "long_", "name-", "step=", "120.ckpt"]
