"""Visual knowledge distillation (VKD): the method, and what it is made of."""

from unsee.methods.vkd.method import VKD

__all__ = ["VKD"]
