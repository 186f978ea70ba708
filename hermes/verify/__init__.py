"""Does all that a run's ledger says follow from what is there? Nothing here ever writes."""
