"""Pure packet and protocol logic: bytes and ``now`` in, bytes or decisions out. No I/O, no clock."""
