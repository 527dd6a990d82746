"""The command line: flags in, words out, and a user's mistake as one sentence."""
