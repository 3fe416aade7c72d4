"""The device program: what runs on a board, with Python 3.6, numpy and what JetPack brings."""
