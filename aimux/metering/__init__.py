"""Who used what: one record a request, and the metrics made of them."""
