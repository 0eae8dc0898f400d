FROM busybox
RUN mkdir -p /a/b && touch /a/b/c /a/d && chmod 1777 /a
RUN rm -r /a/b && ln /a/d /a/hard && mkfifo /a/fifo
RUN rm -r /a && mkdir /a
