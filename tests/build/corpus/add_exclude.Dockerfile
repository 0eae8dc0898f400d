FROM busybox
ADD --exclude=*.txt dir /d/
