"""Text in, token windows out."""

from statprune.data.windows import TextOrigin, Windows, calibration_windows, evaluation_windows

__all__ = ["TextOrigin", "Windows", "calibration_windows", "evaluation_windows"]
