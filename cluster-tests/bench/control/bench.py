"""How long a change of the configuration takes on three nodes, beside etcd where that does the like.

  side_by_side control                   every row
  side_by_side control apply             these
  side_by_side control --rounds 5 --markdown cluster-tests/README.md
                                         a table as well; in a file with the marks <!-- control-bench: begin --> and
                                         <!-- control-bench: end --> between these, and else as the whole file

All nodes run on one machine and one disk, and share the CPUs with what asks them. Needs what side_by_side needs; etcd is
compared when it is installed.
"""

from control import apply, large
from rows import run

GROUP = run.Group("control", __doc__, {**apply.ROWS, **large.ROWS})
