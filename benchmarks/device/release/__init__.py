"""The releases of a device: which one it serves, how it gets the next, and the way back."""
