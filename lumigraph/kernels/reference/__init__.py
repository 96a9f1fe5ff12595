"""Reference implementations in plain torch. They specify the compiled kernels, and the tests compare the two.

Volume kernels use them on devices that have no compiled kernel. Each module specifies the kernel module of its name.
"""
