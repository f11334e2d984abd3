"""Bad input at scale: records of every sort against the codec and the whole pipelines. `python -m tests.fuzz --help`."""
