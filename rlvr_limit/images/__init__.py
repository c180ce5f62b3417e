"""Still images: file bytes, decoded under limits, and the patches that Qwen2.5-VL's vision tower is fed."""

from rlvr_limit.images.image import Image, drawn_image, read_image
from rlvr_limit.images.limits import PixelLimits, limits_of

__all__ = ["Image", "PixelLimits", "drawn_image", "limits_of", "read_image"]
