FROM busybox
RUN mkdir -p /d/sub && chmod 700 /d/sub && chown 3:3 /d/sub
COPY dir /d
