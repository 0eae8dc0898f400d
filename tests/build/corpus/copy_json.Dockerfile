FROM busybox
COPY ["one.txt", "two.txt", "/with space/"]
