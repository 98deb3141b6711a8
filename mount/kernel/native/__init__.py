"""The engine that speaks the kernel's FUSE protocol over /dev/fuse itself."""
