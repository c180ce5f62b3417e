"""Samples that cross the border: read from the files of others, and written for their tools."""
