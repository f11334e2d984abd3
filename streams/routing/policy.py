"""Routing policies: what an answer says it was decided by.

A policy's code stands in the routing Scratch and in the decision rows; its name and version, in the records.
Owner: the public contract (section 6). Not here: what a policy's price is (prices.py).
"""

from typing import NamedTuple


class Policy(NamedTuple):
    """A policy as records name it; a policy that may decide otherwise gets another version."""

    name: str
    version: int


# By code.
POLICIES = (Policy("nearest", 1),)
NEAREST = 0
# The policy of every pool.
IN_FORCE = NEAREST
