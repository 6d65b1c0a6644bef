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
    heads = [re.findall("<th>(.*?)</th>", line)[0] for line in lines]
    assert heads[1].startswith("sparsity (%)")
    assert heads[-1] == "val/error (%)"
    assert "temporal Jacobian" in heads[3]
