"""Tell whether a timestamp is old enough to reveal a later change.

File systems stamp changes by a coarse clock: two changes within one tick leave the same time. A file that was read
within a tick of its last change must be read again (git calls such entries racily clean).
"""

TICK_NS = 20_000_000  # twice the kernel's coarsest clock tick, 100 Hz
COARSE_TICK_NS = 2_100_000_000  # FAT counts in 2 s, ext3 and some NFS servers in 1 s


def is_settled(stamp_ns: int, looked_at_ns: int) -> bool:
    """True if a change after the look at `looked_at_ns` would get another stamp than `stamp_ns`, the last one seen
    (both wall clock)."""
    tick = COARSE_TICK_NS if stamp_ns % 1_000_000_000 == 0 else TICK_NS
    return looked_at_ns - stamp_ns > tick
