"""What an evaluation found, shown: on the console, as JSON, as pictures and as one HTML page."""
