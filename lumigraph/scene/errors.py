"""The family of errors that a person may meet. Each message is one clear sentence: what, where, what to do."""


class LumigraphError(Exception):
    """Something that the user can understand and act on; shown without a traceback."""


class CaptureError(LumigraphError):
    """Photos, videos, poses or dataset files that cannot be used."""


class FormatError(LumigraphError):
    """A splat, mesh or point file that cannot be read or written."""


class RunError(LumigraphError):
    """A run folder, a checkpoint or an option that does not fit."""
