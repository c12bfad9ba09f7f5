"""What all runtimes share."""

from backend.common.errors import ConfigError


def earlier_block(block: int | None, n_blocks: int) -> int | None:
    """The same block, or None where it is the last of `n_blocks`: one network, one identity.

    Raises:
        ConfigError: there is no such block.
    """
    if block is not None and not 1 <= block <= n_blocks:
        raise ConfigError(f"BLOCK={block}: the network has blocks 1 to {n_blocks}")
    return None if block == n_blocks else block
