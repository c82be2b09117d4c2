"""Tag lists of other gateways become rows of tags.csv and [[device]] sections.

    result       what an import gives, and how a row is made and checked
    reference    register numbers of manuals (400001, 40001) and what stands behind them
    kepware, thingsboard, telegraf, neuron   text of a file -> result

Rules: nothing is guessed. What the file does not say (above all the order of registers) stays empty, so that
`andon check` asks for it; what cannot be converted is listed with its line and the reason. No file is opened here.
"""
