FROM busybox
ENTRYPOINT exec top -b
CMD ["-n1"]
