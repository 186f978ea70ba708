"""The ordered log that everything travels through, and tensors in chunks on top of it."""
