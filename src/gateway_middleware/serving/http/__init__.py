"""An HTTP/1.1 server protocol for uvicorn's `http=` option, with bounds on all that a client may send or hold."""
