"""A real cluster: which nodes there are, and how they come to run workers."""
