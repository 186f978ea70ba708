"""A Keras job with three places to edit, marked 1 to 3; those of examples/master.py.

    hermes check examples/master_keras.py           # tries it, and says what a run will cost
    hermes run examples/master_keras.py             # broker, master and workers on this machine
    python examples/master_keras.py                 # a master; workers elsewhere: hermes worker
    KERAS_BACKEND=torch hermes run examples/master_keras.py        # Keras on PyTorch
    hermes run examples/master_keras.py -- --smoke  # a short run: what stands after -- is `args`

As it stands it learns to read 1797 handwritten digits of 8 x 8 pixels.
"""

import keras
from keras import layers

import hermes


# 1. Your model, compiled: its optimizer, loss and metrics are its own.
def model():
    network = keras.Sequential(
        [
            keras.Input((8, 8)),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dense(10),
        ]
    )
    network.compile(
        optimizer=keras.optimizers.SGD(0.1),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return network


# 2. Your data: arrays (x, y), ((x, y), (x_test, y_test)), or an iterator of blocks.
def data():
    return hermes.data.digits()  # 1797 images of 8 x 8, as in scikit-learn


def job(args):
    return hermes.Job(
        model=model,
        data=data,
        batch=32,
        # 3. When to stop: the first rule that holds.
        stop=hermes.Stop(samples=5_000 if "--smoke" in args else 200_000, patience=50),
    )


if __name__ == "__main__":
    hermes.main(job)
