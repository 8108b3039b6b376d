from typing import Any

import pytest

from p2pos.shard import layer_code


class Alone:
    def forward(self, hidden: Any) -> Any:
        return hidden


class Two:
    def forward(self, hidden: Any) -> Any:
        return hidden, None


class Grown:
    def forward(self, hidden: Any) -> Any:
        outputs = (hidden,)
        outputs += (None,)
        return outputs


class Joined:
    def forward(self, hidden: Any, more: tuple[Any, ...] = ()) -> Any:
        return (hidden,) + more  # noqa: RUF005 - as transformers writes it


@pytest.mark.parametrize(("kind", "count"), [(Alone, 0), (Two, 2), (Grown, 2), (Joined, 1)])
def test_how_many_values_a_layer_returns_is_read_from_its_code(kind: Any, count: int) -> None:
    """A tuple is told from a single value, whether it is written out, bound to a name, added to or joined."""
    assert layer_code.results(kind.forward) == count
