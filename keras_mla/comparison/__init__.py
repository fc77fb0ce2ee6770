"""Compares methods on data: which one wins, by how much, and how surely."""
