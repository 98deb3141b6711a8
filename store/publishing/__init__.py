"""A staged model enters the store: compared, renamed or uploaded, never half."""
