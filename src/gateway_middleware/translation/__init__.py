"""Translation between the dialects, sans-IO: any client surface on any provider, nothing lost without being named.

Each dialect has a decoder and an encoder for requests, answers and streams; between them stands one vocabulary that is
richer than each dialect. A field of a request is carried, listed as dropped, or refused by name.
"""
