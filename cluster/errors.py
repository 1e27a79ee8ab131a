"""What can go wrong with a cluster and the user can mend. `exit_code` is read by duck type, since `cluster` imports nothing of
ours."""

from __future__ import annotations


class ClusterError(Exception):
    """Something about the cluster that the user can mend; printed as it stands."""

    exit_code = 1
