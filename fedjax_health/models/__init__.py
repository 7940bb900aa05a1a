"""Generative models and the classifier."""
