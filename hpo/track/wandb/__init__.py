"""The one place that knows W&B.

    contents.py     a study, a trial and a promotion as W&B runs, computed from the journal; no W&B in it
    destination.py  online or offline, which server, which project
    client.py       the calls to the library, fenced off from the user's settings and terminal
    ledger.py       which runs were written whole, and where they lie
    runs.py         the tracker that the pump drives
    promotions.py   promotions, kept on disk until they are written

W&B keeps a run as an append-only history, so that nothing in it can be corrected. Each run here has an id that
follows from the study, and is always written whole, from its first row: at W&B a run that is begun again with
the same id and without `resume` takes the place of the former one, row for row (its file stream starts at
offset 0; people who wanted otherwise report it: issues 3841 and 5865 of wandb/wandb). So writing again changes nothing.
"""
