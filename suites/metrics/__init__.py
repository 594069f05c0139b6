"""How far two results differ, and the limits that a difference is judged by. Pure functions of NumPy arrays."""
