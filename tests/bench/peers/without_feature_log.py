"""The worker without its feature log, which no setting offers: explanations and training rest on it."""

from functools import partial

import line_process
from stream import app
from stream.line import Topics


def no_features(topics: type[Topics], decisions: str, dead_letters: str, _features: str) -> Topics:
    return topics(decisions, dead_letters, "")


if __name__ == "__main__":
    app.Topics = partial(no_features, Topics)
    line_process.main()
