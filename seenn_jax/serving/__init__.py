"""Requests answered as they come: slots on the device, one thread on the host, HTTP above it.

with Server(seenn_jax.load("digits-resnet8")) as server:
    server.submit(image).result()
"""

from seenn_jax.serving.answers import Answer, Refused, Stopped, TooLate
from seenn_jax.serving.core import Served
from seenn_jax.serving.runs import served
from seenn_jax.serving.server import Server, Session

__all__ = ["Answer", "Refused", "Served", "Server", "Session", "Stopped", "TooLate", "served"]
