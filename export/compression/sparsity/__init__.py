"""2:4 structured sparsity: two of every four input channels are zero at each kernel position, as tensor cores need it.

ceiling.py           the share of work in 2:4 layers, and the best gain that it allows
channel_groups.py    which channels of a traced network may change places together
channel_rules.py     what each traced operator means for channels
eligibility.py       which layers are made sparse, and why the others are not
masks.py             2:4 masks by magnitude or chance, and the check that one holds
permutation.py       the order of channels that keeps most magnitude
second_order.py      masks and weight updates after SparseGPT, correct for convolutions
sparsify.py          the story: permute, mask, recover, with every figure on the way
"""
