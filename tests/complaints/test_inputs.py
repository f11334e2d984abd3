"""What senders get wrong in an event itself, each with its thread, and what happens here instead.

Every story is told twice: one event a batch, and all in one.
"""

import pytest

from tests.complaints.story import START_MS, STEP_MS, Story, in_batches, refuses

HOUR_MS = 3_600_000
SKEW_MS = 300_000


# T11: another clock.


@in_batches
@pytest.mark.parametrize("field", ["time", "counted_at"])
def test_a_count_from_the_future_freezes_no_cell(size, field):
    """A device with a wrong clock counts tomorrow, and every sale until then counts as known already.

    https://github.com/openmsupply/open-msupply/issues/11603, https://github.com/openmsupply/open-msupply/issues/8953
    """
    story = Story("A").stock("count", "A", "s", 10)
    ahead = HOUR_MS if field == "time" else START_MS + HOUR_MS
    ending = refuses(story.stock("count", "A", "s", 99, **{field: ahead}), size, "time_out_of_range")
    name = "event_time" if field == "time" else "counted_at"
    assert ending.letters[0]["detail"].startswith(f"{name}: {START_MS + HOUR_MS} is 3598 s ahead of the log, which is at ")
    ending = story.stock("sale", "A", "s", 3).order("o", ("s", 8)).run(size)
    assert ending.cell("A", "s") == (7, 0, 7)
    assert ending.last("o")["status"] == "backordered"


@in_batches
def test_a_sale_in_seconds_is_no_sale_of_1970(size):
    """A sender tells seconds; the sale is older than the last count and is lost.

    https://github.com/eclipse/kuksa.val/issues/88
    """
    story = Story("A").stock("count", "A", "s", 10)
    ending = refuses(story.stock("sale", "A", "s", 4, time=-START_MS + START_MS // 1000), size, "time_out_of_range")
    assert ending.letters[0]["detail"] == f"event_time: {START_MS // 1000} looks like seconds; expected epoch milliseconds"


@pytest.mark.parametrize("time", [-START_MS + 946_684_800_000, STEP_MS + SKEW_MS])
def test_the_earliest_and_the_latest_plausible_times_are_taken(time):
    assert Story("A").stock("receipt", "A", "s", 4, time=time).run(1).cell("A", "s") == (4, 0, 4)


@pytest.mark.parametrize("time", [-START_MS + 946_684_799_999, STEP_MS + SKEW_MS + 1])
def test_a_millisecond_beyond_them_is_refused(time):
    refuses(Story("A").stock("receipt", "A", "s", 1).stock("receipt", "A", "s", 4, time=time + STEP_MS * (time > 0)), 1,
            "time_out_of_range")  # fmt: skip


def test_how_far_a_sender_may_be_ahead_is_a_setting():
    story = Story("A", clock_skew_ms=0).stock("receipt", "A", "s", 1)
    ending = refuses(story.stock("receipt", "A", "s", 4, time=2 * STEP_MS + 1), 1, "time_out_of_range")
    assert ending.letters[0]["detail"].endswith("expected at most 0 s (setting clock_skew_ms): set the sender's clock")
