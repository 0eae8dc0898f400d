FROM busybox
COPY --exclude=sub --exclude=*.md dir /d/
