"""Recordings of event cameras and ears, by file format and data set; and events of still images."""
