"""Every kernel in plain torch: the specification that the compiled ones are tested against, and for volumes the route
on any other device. One module a kernel, of the same name."""
