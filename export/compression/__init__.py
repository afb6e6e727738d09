"""Makes the forms of the weights other than the dense one; each form takes the place of what step `wrap` made.

    compress.py          step `compress`: makes the form that a variant asks for
    spec.py              the recipe's sections: sparsity, pruning, recovery
    traced_network.py    what forms share: the traced module, its raw outputs, its metric, how it is saved
    recovery.py          teaches a form its answers back, masks held
    recovery_loss.py     how far a student's raw outputs are from its teacher's
    recovery_images.py   batches of changing images
    threads.py           keeps many small operations on one thread

The forms themselves are `export/compression/sparsity/` (2:4) and `export/compression/pruning/` (whole channels).
"""
