from busybox
maintainer Some One
run true
