FROM busybox
HEALTHCHECK --interval=1m30s --timeout=1.5s --start-period=10ms --start-interval=2s --retries=39 CMD echo "hé" \
    && true
HEALTHCHECK --timeout=1h2m3s --retries=10 CMD ["a \"b\"", "tab\t"]
