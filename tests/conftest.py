"""What holds for every test."""

from __future__ import annotations

import os

from hypothesis import settings

# No deadline for an example: a shared machine stalls, and tests wait for events, not for time. Where changes are judged, the
# same examples run each time, so that a change is refused for what it did.
settings.register_profile("cabrank", deadline=None, derandomize="CI" in os.environ, print_blob=True)
settings.load_profile("cabrank")
