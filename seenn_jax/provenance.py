"""What a figure was measured with: revision, versions, device."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import jax

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def revision() -> str:
    """The git revision of this code, "+changes" if files differ from it, or "unknown".

    Where the code is no git checkout (a container), the environment variable SEENN_REVISION says.
    """
    folder = Path(__file__).parent
    try:
        head = subprocess.run(
            ["git", "-C", folder, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True
        )
        # An installed copy may lie in somebody else's checkout.
        ours = subprocess.run(
            ["git", "-C", folder, "ls-files", "--error-unmatch", __file__], capture_output=True
        )
        if head.returncode != 0 or ours.returncode != 0:
            return os.environ.get("SEENN_REVISION", "unknown")
        status = subprocess.run(
            ["git", "-C", folder, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
        )
    except OSError:  # no git
        return os.environ.get("SEENN_REVISION", "unknown")
    return head.stdout.strip() + ("+changes" if status.stdout.strip() else "")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that compute."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **found}


def device() -> str:
    """Kind and number of the devices in use, such as "1 x NVIDIA H100"."""
    devices = jax.devices()
    return f"{len(devices)} x {devices[0].device_kind}"


def origin() -> dict:
    """All three, as a result has them: revision, versions, device."""
    return {"revision": revision(), "versions": versions(), "device": device()}
