"""Stochastic estimators, and the evidence by which they are judged."""
