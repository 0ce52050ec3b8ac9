"""What every test shares: how many examples hypothesis tries, and that a run in CI can be repeated exactly."""

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "haulcast",
    deadline=None,
    max_examples=60,
    derandomize=os.environ.get("CI", "") not in ("", "0", "false"),
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],  # says more about the machine than about the test
)
settings.load_profile("haulcast")
