"""A drawn world with complete truth, and tiny real models that are trained on it.

`world` draws things and people, `scenes` composes still pictures, `clips` moves things, `render` writes
videos with captions and exact truth, `train_models` trains the models of the profile `playground`.
"""
