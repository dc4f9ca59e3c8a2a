"""Cron: jobs that run at a time, at intervals, or by the calendar."""
