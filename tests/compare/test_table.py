from sparse_rnn.cli.compare import parse
from sparse_rnn.compare.grid import Cell
from sparse_rnn.compare.table import sections, table

ARGS = ["--config", "gru_digits.yaml", "--criteria", "Random", "--sparsity"]


def laid_out(*args):
    grid = parse([*ARGS, *args])
    return [(s.title, s.axis, s.columns) for s in sections(grid)]


def test_sparsities_are_the_columns_where_nothing_is_varied():
    assert laid_out("0.9,0.95") == [("", "sparsity", [("0.9", 0.9, ()), ("0.95", 0.95, ())])]


def test_the_first_axis_makes_the_columns_and_the_others_a_table_each():
    size, cell = ["--vary", "model.hidden_size=100,400"], ["--vary", "model.cell=gru,lstm"]
    assert laid_out("0.9", *size) == [
        (
            "sparsity 0.9",
            "hidden_size",
            [("100", 0.9, (("model.hidden_size", "100"),)), ("400", 0.9, (("model.hidden_size", "400"),))],
        )
    ]
    titles = [title for title, *_ in laid_out("0.9,0.95", *size, *cell)]
    assert titles == [f"cell {cell}, sparsity {sparsity}" for cell in ("gru", "lstm") for sparsity in ("0.9", "0.95")]


def test_the_rows_are_the_methods_and_the_dense_network_is_the_same_along_an_axis_of_pruning():
    grid = parse([*ARGS, "0.9", "--vary", "pruning.allocation=global,erk", "--vary", "model.cell=gru"])
    [section] = sections(grid)
    asked = []
    text = table(grid, section, "corner", lambda cell: asked.append(cell) or str(len(asked)))
    assert text.splitlines() == [
        "| corner | global | erk |",
        "| ------ | ------ | --- |",
        "| dense  | 1      | 2   |",
        "| Random | 3      | 4   |",
    ]
    gru = ("model.cell", "gru")
    dense = Cell("dense", 0.0, (gru,))
    assert asked[:2] == [dense, dense]
    assert asked[2:] == [Cell("Random", 0.9, (("pruning.allocation", name), gru)) for name in ("global", "erk")]
    assert set(asked) == set(grid.cells())


def test_a_last_column_is_about_the_whole_row():
    grid = parse([*ARGS, "0.9,0.95"])
    [section] = sections(grid)
    last = ("all", lambda row, cells: f"{row} {len(cells)}")
    lines = table(grid, section, "", lambda cell: "x", rows=["Random"], last=last).splitlines()
    assert lines[-1] == "| Random | x   | x    | Random 2 |"
    assert len({len(line) for line in lines}) == 1
