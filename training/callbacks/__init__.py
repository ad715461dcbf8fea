"""What watches a training run: one file a callback, each a `training.loop.callback.Callback`."""
