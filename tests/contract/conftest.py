"""The contract of stores is shipped as part of the package, so pytest must be told that it asserts."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("cabrank.testing.store_contract")
pytest.register_assert_rewrite("cabrank.testing.worker_contract")
