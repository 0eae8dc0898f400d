FROM busybox
COPY --chmod=u=rwX,go=rX dir /d/
