FROM busybox
COPY --link one.txt /linked/one
