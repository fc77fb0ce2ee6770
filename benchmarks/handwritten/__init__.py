"""MLA written by hand for one task, as one would write it without a library.

Each backend's module has a `Loop` that trains two or more modalities with the
same mathematics as `keras_mla.MLA` under SGD with momentum: alternating
updates, projected head gradient, and, as metrics, each modality's loss and
accuracy and the accuracy of the entropy fusion.
"""
