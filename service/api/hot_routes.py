"""The table of hot routes."""

from typing import Final

from service.api import arrow_body, scoring, uplift
from service.api.arrow_body import ARROW
from service.api.body import JSON
from service.api.hot import Hot

HOT_ROUTES: Final = (
    Hot(
        "/score",
        "score",
        {JSON: (scoring.reply_to, JSON), ARROW: (arrow_body.reply_to, JSON)},
        accepted={(ARROW, ARROW): arrow_body.arrow_reply_to},
    ),
    Hot("/uplift", "uplift", {JSON: (uplift.reply_to, JSON)}),
)
