from sparse_rnn.config_files import find_config, shipped_configs


def test_every_shipped_config_has_a_line_and_can_be_found(run, capsys):
    run("configs")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(shipped_configs()) > 25
    for line in lines:
        name, what = line.split(maxsplit=1)
        assert find_config(name)
        assert len(what) > 10
        assert len(line) <= 120


def test_it_takes_no_argument(refused):
    assert "unrecognized arguments: gru" in refused("configs", "gru")
