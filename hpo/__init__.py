"""hpo: experiment-tracking hyperparameter search for language models.

This package searches. It knows nothing of what a trial trains: an objective enters by its import path
(`hpo.objective`), measurements come out of it as a generator, and no model library is ever imported here.
"""
