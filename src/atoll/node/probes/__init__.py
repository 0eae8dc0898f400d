"""Asking containers how they are: `handlers` does one exec, http or tcp action, `prober` repeats them by each probe's periods."""
