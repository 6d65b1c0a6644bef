from collections.abc import Mapping


class Unresolved(Mapping):
    """A config, one of whose values is missing: asking for it raises."""

    def __getitem__(self, key):
        raise RuntimeError(f"Missing mandatory value: {key}")

    def __iter__(self):
        return iter(["path"])

    def __len__(self):
        return 1
