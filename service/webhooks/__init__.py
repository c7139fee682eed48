"""News of jobs, sent to whoever wants them."""
