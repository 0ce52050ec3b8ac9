"""The operator console in a real browser, against real servers or one that does as the test says."""
