"""What the cache costs and how long it takes, on one node and on three, beside nginx, haproxy and varnish.

  side_by_side cache                     every row
  side_by_side cache hit-1k cold purge   these
  side_by_side cache --rounds 5 --markdown README.md
                                         a table as well; in a file with the marks <!-- cache-bench: begin --> and
                                         <!-- cache-bench: end --> between these, and else as the whole file

Whoever can do the same work does it in the same round; ratios are medians of those of each round. `shoal` is one node on
a CPU of its own, as the others are; `shoal ×3` is three nodes on loopback, which share all CPUs with what asks them.
Needs what side_by_side needs; for nodes that are cut off by more than SIGSTOP root, unshare, ip and nft.
"""

from cache import cold, hits, late_joiner, memory, node_loss, peer_hit, purge, restart, stale, uncacheable
from rows import run

ROOMS = (hits, peer_hit, memory, cold, late_joiner, uncacheable, stale, node_loss, purge, restart)
GROUP = run.Group("cache", __doc__, {label: what for room in ROOMS for label, what in room.ROWS.items()})
