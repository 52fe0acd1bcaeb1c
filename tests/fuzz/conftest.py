"""What looks for trouble is run by itself: it changes every module that it loads."""

collect_ignore = ["targets.py"]
