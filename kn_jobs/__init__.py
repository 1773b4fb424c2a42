"""Jobs from the terminal: `kn jobs`, a plugin of Knative's `kn`. It uses the HTTP API alone."""
