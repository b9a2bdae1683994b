"""Wire formats that several providers' upstreams speak: meters, errors and session keys, ready to be used."""
