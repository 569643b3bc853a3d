"""A recorded search, searched again: other samplers and stopping rules on trials that were trained already.

The real search loop and the real study run, with recorded curves in the place of training and a clock that jumps from
one event to the next. So what a strategy would have done is found out in seconds, with as many slots as one likes.

    tables      recorded trials, and what is measured where none was recorded
    modelled    a model that answers for what was not, and how well
    recorded    other people's tables, each file read as it was published
    synthetic   surfaces whose optimum is known
    simulation  slots and a clock in which recorded trials run
    contest     strategies on a table, repeated and paired
    telling     the outcome in words, tables and plots
"""
