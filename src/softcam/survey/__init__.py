"""What converts: one row per model of timm and torchvision, kept with the package.

Reading the table needs neither torch nor timm; `softcam.survey.judge` and `softcam.survey.measure` make its rows.
"""

from softcam.survey.table import Survey, SurveyRow, read_survey

__all__ = ["Survey", "SurveyRow", "read_survey"]
