"""HTTP: endpoints, answers, pages, and who may call."""
