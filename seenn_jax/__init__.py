"""Spiking neural networks that stop computing for a sample as soon as they are sure of it."""
