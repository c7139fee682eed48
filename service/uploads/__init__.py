"""Models and data on their way in."""
