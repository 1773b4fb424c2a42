"""The life of a job: submission, attempts, the sweep, the outbox."""
