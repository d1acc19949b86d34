"""Recording what goes over sessions: one who listens, a place to keep it, and what hides the secrets in it."""
