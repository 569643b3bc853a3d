"""Built-in data for a first run of each task: there in every Python, without a download.

`docstrings` reads the standard library's own documentation strings; everything else is generated here, by fixed
seeds, from small grammars: `dates`, `help_desk`, `preferences`, `dialogue_text`. They show that a training works
and what a search does. They are no benchmarks, and a score on them says nothing about other data. Each function
starts a fresh pass over rows in one pool; knows nothing of splits.
"""

from models.samples.appointments import dates
from models.samples.articles import dialogue_text
from models.samples.documentation import docstrings
from models.samples.help_desk import help_desk, preferences

__all__ = ["dates", "dialogue_text", "docstrings", "help_desk", "preferences"]
