FROM busybox
RUN echo "app:x:7:8::/home/app:/bin/sh" >> /etc/passwd && mkdir -p /home/app && chown 7:8 /home/app
USER app
WORKDIR /home/app/made
RUN id -u > /home/app/uid && pwd >> /home/app/uid
USER 12:13
