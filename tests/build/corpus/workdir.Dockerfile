FROM busybox
ENV D=/env
WORKDIR /abs
WORKDIR rel
WORKDIR ${D}/x
RUN pwd > /pwd
