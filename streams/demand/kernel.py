"""What a click does: the clock moves, duplicates are found, views, carts and checkouts are counted. One pass over a batch.

Every record moves the clock, whatever it says: the log's time is the broker's. A click counts at the clock, so a sender's
`event_time` changes nothing as long as it is plausible. Not here: the tables (state/demand.py), decoding (topics/codec).
"""

from state.demand import SKEW_MS, advance, count_click, has_room
from state.seen import SEEN, UNSEEN, key_of, remember, was_seen
from streams.batch.times import is_plausible
from topics.compiled.kernels import kernel
from topics.reasons import DeadLetter, Kind, Outcome


@kernel
def apply_clicks(t, clicks, buffer, outcomes_out):
    """Apply a batch in order.

    Parameters
    ----------
    t : state.demand.Tables
        With room for all of the batch.
    clicks : CLICK[n]
        Decoded; those of kind UNDECODED are dead letters.
    buffer : uint8[], read-only
        Where the clicks' texts are.
    outcomes_out : uint8[n]
        reasons.Outcome of each.
    """
    for event in range(clicks.size):
        click = clicks[event]
        advance(t, click.timestamp, event)
        if click.kind == Kind.UNDECODED:
            outcomes_out[event] = Outcome.DEAD_LETTER
            continue
        if not is_plausible(click.event_time, click.timestamp, t.limits[SKEW_MS]):
            click.reason = DeadLetter.TIME_OUT_OF_RANGE
            outcomes_out[event] = Outcome.DEAD_LETTER
            continue
        low, high = key_of(click.topic, buffer, click.visitor_at, click.visitor_size, click.event_id_at, click.event_id_size)
        seen = was_seen(t, low, high, click.content, buffer, click.event_id_at, click.event_id_size)
        if seen != UNSEEN:
            outcomes_out[event] = Outcome.DUPLICATE
            if seen != SEEN:
                click.reason = DeadLetter.EVENT_ID_REUSED
                outcomes_out[event] = Outcome.DEAD_LETTER
            continue
        counted = click.kind == Kind.VIEW or click.kind == Kind.CART or click.kind == Kind.CHECKOUT
        counted = counted and click.sku_size > 0 and click.pool_size > 0
        if counted and not has_room(t, click, buffer):
            click.reason = DeadLetter.TOO_MANY_SKUS
            outcomes_out[event] = Outcome.DEAD_LETTER
            continue
        remember(t, low, high, click.content)
        outcomes_out[event] = Outcome.APPLIED
        if counted:
            count_click(t, click, buffer, event)
