"""Common parts of all runtimes."""

from collections.abc import Sequence

from backend.common.errors import ConfigError


def blocks_name(blocks: Sequence[int]) -> str:
    """The identifier of tokens of several blocks, side by side.

    >>> blocks_name((9, 10))
    '9+10'
    """
    return "+".join(map(str, blocks))


def earlier_block(block: int | None, n_blocks: int) -> int | None:
    """The same block, or None if it is the last of `n_blocks`: one network, one identity.

    Raises:
        ConfigError: there is no such block.
    """
    if block is not None and not 1 <= block <= n_blocks:
        raise ConfigError(f"BLOCK={block}: the network has blocks 1 to {n_blocks}")
    return None if block == n_blocks else block
