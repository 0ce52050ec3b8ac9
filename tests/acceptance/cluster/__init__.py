"""Stories of three nodes, and of what happens to them and to what they share."""
