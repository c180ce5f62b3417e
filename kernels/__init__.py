"""Numeric kernels, each a folder with reference.py in plain JAX (the specification) and one public function."""
