"""Serving the functions: the application that granian runs, and the JobSink's program."""
