import pytest

from sparse_rnn.data.hold_out import check_hold_out, left_to_train_on
from sparse_rnn.errors import UsageError


def test_the_rest_is_what_the_share_leaves():
    assert [left_to_train_on(10, share) for share in (0, 0.1, 0.5, 0.99)] == [10, 9, 5, 0]


@pytest.mark.parametrize("share", [-0.1, 1, 2])
def test_what_is_no_share_is_refused(share):
    with pytest.raises(UsageError, match="hold_out="):
        check_hold_out(share)
