"""Whether a timestamp can be trusted to tell a later change from what was seen.

File systems stamp changes by a coarse clock: two changes within one tick leave the same time. What was looked at within
a tick of its last change must be looked at again (git calls such entries racily clean).
"""

TICK_NS = 20_000_000  # twice the kernel's coarsest clock tick, 100 Hz
COARSE_TICK_NS = 2_100_000_000  # FAT counts in 2 s, ext3 and some NFS servers in 1 s


def is_settled(stamp_ns: int, looked_at_ns: int) -> bool:
    """Whether something last changed at `stamp_ns` and seen at `looked_at_ns` (both wall clock) would show a change
    made after the look by another stamp."""
    tick = COARSE_TICK_NS if stamp_ns % 1_000_000_000 == 0 else TICK_NS
    return looked_at_ns - stamp_ns > tick
