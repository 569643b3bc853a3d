"""The packages that loading a saved model requires, whatever it was trained for."""

PACKAGES: tuple[str, ...] = (
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "numpy",
    "pandas",
    "annotated-types",
    "jinja2",  # chat templates
    # what cleans its input, where steps of `preprocess` are switched on
    "beautifulsoup4",
    "ftfy",
    "regex",
    "sacremoses",
    "sentencex",
    "stop-words",
)
