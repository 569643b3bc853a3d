"""A model behind HTTP, spoken to as OpenAI's models are.

Why not `transformers serve` (5.23), whose generation we use all the same: it asks for no key, answers a prompt
longer than the context with an error 500 or a broken stream, raises every limit of new tokens to 1024 (beyond
learned positions), leaves stop strings in the text, sets the seed of one request while another may be generating,
has no list of its own one model, and knows no classifier or translator.

    requests   what clients may ask, checked
    answers    OpenAI's JSON, errors included
    worker     the one thread that the model answers in
    app        the routes
    server     the port, the key, and the process
"""
