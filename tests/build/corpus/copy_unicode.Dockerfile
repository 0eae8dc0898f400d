FROM busybox
COPY unicode-é.txt /ü/
