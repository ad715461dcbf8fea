"""What the gradients of two tasks make of each other."""
