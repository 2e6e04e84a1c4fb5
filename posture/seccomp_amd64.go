package posture

// archCalls are those that newer architectures do without.
const archCalls = `open stat lstat newfstatat access readlink poll select epoll_create epoll_wait eventfd pipe dup2 unlink mkdir rmdir rename chmod
arch_prctl time getdents inotify_init`
