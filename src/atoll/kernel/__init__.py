"""System calls and nothing else: the only package that uses ctypes."""
