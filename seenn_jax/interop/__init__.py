"""Networks of other software, in and out."""
