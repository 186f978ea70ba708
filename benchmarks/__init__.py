"""What does Hermes cost? One module a claim; `./scripts/benchmark NAME` runs it."""
