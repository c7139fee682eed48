"""The whole service on one machine: its processes, its broker, its folder."""
