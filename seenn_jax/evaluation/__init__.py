"""Evaluation of runs with early exit: the validation split chooses, the asked split is reported."""
