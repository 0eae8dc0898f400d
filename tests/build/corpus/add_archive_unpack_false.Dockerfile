FROM busybox
ADD --unpack=false archive.tar.gz /out/
