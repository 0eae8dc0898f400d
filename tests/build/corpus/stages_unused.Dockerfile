FROM busybox AS never
RUN exit 1
FROM busybox AS mid
ENV M=1
FROM mid AS last
RUN echo $M > /m
