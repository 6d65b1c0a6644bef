"""Python's numbers in the place of NumPy's, which options may be, but which PyTorch reads from no checkpoint."""

from typing import Any

import numpy as np

from sparse_rnn.torch_compat import tree_map_only


def python_numbers(values: Any, arrays: bool = False) -> Any:
    """Return what lists, tuples and dictionaries hold with Python's numbers in the place of NumPy's.

    Args:
        values: What may hold some.
        arrays: Whether NumPy's arrays become lists, too.

    Example:
        >>> import numpy as np
        >>> python_numbers({"sparsity": np.float64(0.5), "sizes": [np.int64(3)]})
        {'sparsity': 0.5, 'sizes': [3]}
    """
    kinds = (np.generic, np.ndarray) if arrays else np.generic
    return tree_map_only(kinds, lambda number: number.tolist(), values)
