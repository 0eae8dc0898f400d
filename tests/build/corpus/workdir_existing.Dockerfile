FROM busybox
WORKDIR /bin
USER nobody
WORKDIR /
WORKDIR /tmp
USER 7
WORKDIR made/here
