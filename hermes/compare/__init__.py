"""Which strategy is quicker, and by how much? A matrix of simulated runs, and what it comes to."""
