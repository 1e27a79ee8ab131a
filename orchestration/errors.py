"""The errors a user can cause or must act on. Takes a sentence that names the file, row or key path, what is allowed and
what to do; gives an exception that the command line prints without a traceback. `exit_code` is read by duck type, so
`cluster` and `models`, which import nothing of ours, raise their own classes with the same attribute."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can mend. The message is complete: it is printed as it stands."""

    exit_code = 1


class SpecError(UserError):
    """A wrong spec. Raised before any process starts."""

    exit_code = 2


class DataError(UserError):
    """An input file or row that cannot be used: names the file and the row."""


class DamagedError(UserError):
    """A sealed folder whose bytes do not match its manifest: names the folder, the file and what differs."""


class PlanMismatchError(UserError):
    """The live optimizer differs from the planned table of groups: names each group and value."""
