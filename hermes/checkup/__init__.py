"""What does a job come to, before anything is started? `hermes check`, in steps."""
