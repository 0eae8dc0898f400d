FROM busybox
RUN mkdir /real && ln -s real /to
COPY one.txt /to/
