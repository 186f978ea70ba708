"""What does a variable, or tensor, of Keras hold?"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt


def numpy_of(value: Any) -> npt.NDArray[np.generic]:
    """A copy of it, and one alone: of a variable of TensorFlow Keras would make two."""
    tensor = value.value if isinstance(value, keras.Variable) else value
    found: npt.NDArray[np.generic]
    if keras.backend.backend() == "tensorflow" and hasattr(tensor, "numpy"):
        found = np.asarray(tensor.numpy())
    else:
        found = keras.ops.convert_to_numpy(tensor)
    return found if found.flags.owndata else np.array(found)
