"""Others' ways to do the same job, each a process of its own: what our figures stand beside."""

from topics.errors import AnswerIsNo


class PeerMissing(AnswerIsNo):
    """A peer can't be built here; the message says why and what to do."""
