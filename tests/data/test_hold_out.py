import pytest

from sparse_rnn.data.hold_out import check_hold_out, left_to_train_on
from sparse_rnn.errors import UsageError


def test_the_rest_is_what_the_share_leaves():
    assert [left_to_train_on(10, share) for share in (0, 0.1, 0.5, 0.9)] == [10, 9, 5, 1]


@pytest.mark.parametrize(("share", "said"), [(0.99, "leaves 0 to train on and 10"), (0.01, "10 to train on and 0 to")])
def test_something_is_left_to_train_on_and_something_held_out(share, said):
    with pytest.raises(UsageError, match=rf"hold_out={share} of 10 .*{said}"):
        left_to_train_on(10, share)


@pytest.mark.parametrize("share", [-0.1, 1, 2])
def test_what_is_no_share_is_refused(share):
    with pytest.raises(UsageError, match="hold_out="):
        check_hold_out(share)
