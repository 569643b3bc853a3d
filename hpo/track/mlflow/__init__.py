"""MLflow: its store, a study as runs in it, its model registry, its UI.

    store.py      where runs go, the store made once, calls within MLflow's limits
    runs.py       a study's run and its trials' runs, from the journal
    registry.py   a promotion as a run, models with versions and aliases
    view.py       the UI's saved view of a study, and links
    server.py     the UI as a process

Only here is MLflow imported, and only inside functions: it takes two seconds.
"""
