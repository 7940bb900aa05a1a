"""The report page, made from a run's files only."""
