"""Why did that happen? Each decision in words, and worked out once more. Pure."""
