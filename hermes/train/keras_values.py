"""What does a variable, or tensor, of Keras hold?"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt


def numpy_of(value: Any) -> npt.NDArray[np.generic]:
    """A copy of it. Keras makes one on both of our backends: a second is made only where it did
    not."""
    tensor = value.value if isinstance(value, keras.Variable) else value
    found: npt.NDArray[np.generic] = keras.ops.convert_to_numpy(tensor)
    return found if found.flags.owndata else np.array(found)
