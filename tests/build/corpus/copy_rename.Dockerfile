FROM busybox
WORKDIR /w
COPY one.txt sub/renamed
COPY one.txt .
COPY dir/. here/
