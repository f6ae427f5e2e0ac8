"""Every simple way to fuse, as a head that is trained like any other."""
