FROM busybox
RUN mkdir /data && echo kept > /data/f
VOLUME /data ["/other"]
VOLUME ["/json one"]
