FROM busybox
COPY link.txt /followed
COPY . /all/
