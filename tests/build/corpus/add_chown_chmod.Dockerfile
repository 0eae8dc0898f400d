FROM busybox
ADD --chown=5:6 --chmod=751 one.txt dir/ /d/
