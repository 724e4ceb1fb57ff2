"""Property-based tests draw the same examples everywhere, and are not hurried.

`HYPOTHESIS_PROFILE=explore pytest tests/test_properties.py` draws new and more ones.
"""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("book", derandomize=True, deadline=None, database=None, max_examples=25)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "book"))
