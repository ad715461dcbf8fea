"""Callbacks of a training run. Each file has one `training.loop.callback.Callback`."""
