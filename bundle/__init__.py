"""What training writes and the service reads: declarations, the feature transform, corrections and bundle files.

Only numpy, pydantic and xxhash are imported here; a test holds that line.
"""
