"""`haulcast demo`: a server of its own, a simulated city, and a checker that trusts neither."""
