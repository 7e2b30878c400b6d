"""Xet, the protocol by which the hub's client moves large files where `hf_xet` is installed."""

from __future__ import annotations

from importlib.util import find_spec


def advice(failure: BaseException) -> str:
    """Advice where a transfer by Xet may have failed; "" where the hub answered or Xet is off.

    Its servers have addresses of their own, which a network may keep from being reached.

    Args:
        failure: What the client raised.
    """
    from huggingface_hub import constants

    answered = getattr(failure, "response", None) is not None
    if answered or constants.HF_HUB_DISABLE_XET or find_spec("hf_xet") is None:
        return ""
    return " If the transfer by Xet does not work here, HF_HUB_DISABLE_XET=1 leaves it out."
