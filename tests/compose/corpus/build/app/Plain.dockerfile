FROM busybox:latest
CMD ["echo", "plain image"]
