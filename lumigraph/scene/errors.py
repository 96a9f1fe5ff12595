"""Errors shown to users. Each message is one sentence that names the fault, its location and the remedy."""


class LumigraphError(Exception):
    """Base of errors that users can act on; shown without a traceback."""


class CaptureError(LumigraphError):
    """Unusable photos, videos, poses or dataset files."""


class FormatError(LumigraphError):
    """An unreadable or unwritable splat, mesh or point file."""


class RunError(LumigraphError):
    """An invalid run folder, checkpoint or option."""
