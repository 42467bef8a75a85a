"""How a cache is made: planned, read in parts, written in shards, in a local pool or on Apache Beam.

TensorFlow and SeqIO are imported here; what a run reads from a finished cache is `jaxlink.data.blocks`.
"""
