"""What the machines ask for, done on a log: no clock, no thread. The runtime and the simulator both
stand on it; neither knows the other."""
