"""A worker as a program of its own, for devices where you would rather start a file:

    python examples/worker.py --broker 192.168.1.10:9092 --name kitchen

It is `hermes worker`, with the same flags (--help). Model and training come from the master, signed
with the cluster key: there is nothing to edit here.
"""

import hermes

if __name__ == "__main__":
    hermes.worker_main()
