"""Do the same machines, given what a run recorded, do the same again? With real training."""
