FROM busybox
ENV legacy form with spaces
ENV A=1 B="x y" C='q $A' D=e\ f
ENV P=${A:-d}${Z:+no}${Z:-yes} Q=${B#x} R=${B%y} S=${B/x/z}
