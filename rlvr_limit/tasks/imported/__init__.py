"""Samples that others drew: which files an arm is made of, and what their rows say, whoever wrote them."""
