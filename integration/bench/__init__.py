"""``make bench``: whole builds by ``mobysession build`` and by ``docker buildx build``, on one engine, in turns."""
