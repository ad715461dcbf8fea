"""A drawn world in which everything is known, and the tiny real models that learn it.

`world` draws things and people, `scenes` puts them into still pictures, `clips` lets them move, `render`
writes videos with captions and exact truth, `train_models` trains the models of the profile `playground`.
"""
