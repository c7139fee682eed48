"""What can be watched: metrics, logs, traces, readiness."""
