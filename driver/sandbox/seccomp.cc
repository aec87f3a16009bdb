#include "driver/sandbox/seccomp.h"

#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <utility>

#include "absl/types/span.h"

namespace jenkins_agent {
namespace {

// Allowed whatever the arguments. A process without capabilities and with no_new_privs gains
// nothing by these beyond what file permissions and its own namespaces give.
constexpr const char* kAllowed[] = {
    // processes and threads
    "fork", "vfork", "execve", "execveat", "exit", "exit_group", "wait4", "waitid", "getpid",
    "getppid", "gettid", "getpgid", "getpgrp", "setpgid", "getsid", "setsid", "set_tid_address",
    "set_robust_list", "get_robust_list", "rseq", "membarrier", "arch_prctl", "prctl", "pidfd_open",
    "getrandom", "pidfd_send_signal", "process_mrelease", "restart_syscall", "set_thread_area",
    "get_thread_area", "ptrace", "process_vm_readv", "process_vm_writev",
    // signals
    "kill", "tkill", "tgkill", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "rt_sigpending",
    "rt_sigtimedwait", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "rt_sigsuspend", "sigaltstack",
    "pause", "signalfd", "signalfd4",
    // user and group ids, limits, priorities
    "getuid", "geteuid", "getgid", "getegid", "getresuid", "getresgid", "getgroups", "setuid",
    "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setfsuid", "setfsgid", "setgroups",
    "capget", "capset", "getrlimit", "setrlimit", "prlimit64", "getrusage", "times", "getpriority",
    "setpriority", "ioprio_get", "ioprio_set", "sched_yield", "sched_getaffinity",
    "sched_setaffinity", "sched_getparam", "sched_setparam", "sched_getscheduler",
    "sched_setscheduler", "sched_getattr", "sched_setattr", "sched_get_priority_max",
    "sched_get_priority_min", "sched_rr_get_interval", "getcpu", "umask", "uname", "sysinfo",
    // memory
    "brk", "mmap", "munmap", "mremap", "mprotect", "madvise", "mincore", "msync", "mlock", "mlock2",
    "mlockall", "munlock", "munlockall", "remap_file_pages", "memfd_create", "memfd_secret",
    "pkey_alloc", "pkey_free", "pkey_mprotect", "map_shadow_stack", "shmget", "shmat", "shmctl",
    "shmdt",
    // futexes, semaphores, message queues
    "futex", "futex_waitv", "futex_wait", "futex_wake", "futex_requeue", "semget", "semop",
    "semtimedop", "semctl", "msgget", "msgsnd", "msgrcv", "msgctl", "mq_open", "mq_unlink",
    "mq_timedsend", "mq_timedreceive", "mq_notify", "mq_getsetattr",
    // time
    "time", "gettimeofday", "clock_gettime", "clock_getres", "clock_nanosleep", "nanosleep",
    "alarm", "getitimer", "setitimer", "timer_create", "timer_settime", "timer_gettime",
    "timer_getoverrun", "timer_delete", "timerfd_create", "timerfd_settime", "timerfd_gettime",
    "adjtimex", "clock_adjtime",  // read only without CAP_SYS_TIME
    // descriptors
    "read", "write", "readv", "writev", "pread64", "pwrite64", "preadv", "pwritev", "preadv2",
    "pwritev2", "lseek", "close", "close_range", "dup", "dup2", "dup3", "fcntl", "flock", "pipe",
    "pipe2", "eventfd", "eventfd2", "poll", "ppoll", "select", "pselect6", "epoll_create",
    "epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "epoll_pwait2", "inotify_init",
    "inotify_init1", "inotify_add_watch", "inotify_rm_watch", "sendfile", "splice", "tee",
    "vmsplice", "copy_file_range", "fsync", "fdatasync", "sync", "syncfs", "sync_file_range",
    "fadvise64", "readahead", "fallocate", "truncate", "ftruncate", "cachestat", "io_setup",
    "io_destroy", "io_submit", "io_cancel", "io_getevents", "io_pgetevents",
    // files
    "open", "openat", "openat2", "creat", "stat", "fstat", "lstat", "newfstatat", "statx", "statfs",
    "fstatfs", "access", "faccessat", "faccessat2", "getdents", "getdents64", "getcwd", "chdir",
    "fchdir", "rename", "renameat", "renameat2", "mkdir", "mkdirat", "rmdir", "link", "linkat",
    "unlink", "unlinkat", "symlink", "symlinkat", "readlink", "readlinkat", "chmod", "fchmod",
    "fchmodat", "fchmodat2", "chown", "fchown", "lchown", "fchownat", "utime", "utimes",
    "futimesat", "utimensat", "name_to_handle_at", "setxattr", "lsetxattr", "fsetxattr", "getxattr",
    "lgetxattr", "fgetxattr", "listxattr", "llistxattr", "flistxattr", "removexattr",
    "lremovexattr", "fremovexattr", "mknod",
    "mknodat",  // FIFOs and sockets; devices need CAP_MKNOD
    // sockets; which families: see ConditionalRules
    "socketpair", "connect", "accept", "accept4", "bind", "listen", "shutdown", "sendto",
    "recvfrom", "sendmsg", "recvmsg", "sendmmsg", "recvmmsg", "getsockname", "getpeername",
    "setsockopt", "getsockopt",
    // self-confinement of build tools and browsers
    "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"};

// Known and refused: a permission error tells a person more than "not implemented".
constexpr const char* kDenied[] = {
    // namespaces, mounts, roots
    "unshare", "setns", "mount", "umount2", "pivot_root", "chroot", "fsopen", "fsconfig", "fsmount",
    "fspick", "open_tree", "move_mount", "mount_setattr", "open_by_handle_at",
    // the kernel itself
    "init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "reboot",
    "bpf", "perf_event_open", "syslog", "iopl", "ioperm", "modify_ldt", "acct", "quotactl",
    "quotactl_fd", "swapon", "swapoff", "sethostname", "setdomainname", "settimeofday",
    "clock_settime", "vhangup", "fanotify_init", "fanotify_mark", "lookup_dcookie",
    // keys are not namespaced
    "add_key", "request_key", "keyctl",
    // large attack surface, with a fallback in every user
    "io_uring_setup", "io_uring_enter", "io_uring_register", "userfaultfd",
    // other processes
    "kcmp", "pidfd_getfd", "process_madvise",
    // NUMA placement; HotSpot with UseNUMA copes
    "mbind", "set_mempolicy", "get_mempolicy", "set_mempolicy_home_node", "migrate_pages",
    "move_pages"};

// What unpacking an image needs.
constexpr const char* kWorkerAllowed[] = {
    "exit", "exit_group", "getpid", "gettid", "getppid", "tgkill", "set_robust_list", "rseq",
    "membarrier", "arch_prctl", "getrandom", "restart_syscall", "prctl", "rt_sigaction",
    "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "getuid", "geteuid", "getgid", "getegid",
    "prlimit64", "getrusage", "sched_yield", "sched_getaffinity", "uname", "sysinfo", "umask",
    // memory and time
    "brk", "mmap", "munmap", "mremap", "mprotect", "madvise", "futex", "clock_gettime",
    "clock_getres", "clock_nanosleep", "nanosleep", "gettimeofday", "time",
    // descriptors
    "read", "write", "readv", "writev", "pread64", "pwrite64", "lseek", "close", "dup", "fcntl",
    "flock", "pipe", "pipe2", "eventfd2", "poll", "ppoll", "select", "pselect6", "fsync",
    "fdatasync", "syncfs", "fadvise64", "ftruncate", "fallocate",
    // files
    "open", "openat", "openat2", "stat", "fstat", "lstat", "newfstatat", "statx", "statfs",
    "fstatfs", "access", "faccessat", "faccessat2", "getdents64", "getcwd", "rename", "renameat",
    "renameat2", "mkdir", "mkdirat", "rmdir", "link", "linkat", "unlink", "unlinkat", "symlinkat",
    "readlink", "readlinkat", "chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown",
    "lchown", "fchownat", "utimensat", "setxattr", "lsetxattr", "fsetxattr", "getxattr",
    "lgetxattr", "fgetxattr", "listxattr", "llistxattr", "flistxattr", "mknod", "mknodat"};
constexpr const char* kWorkerNetwork[] = {
    "connect",  "bind",     "sendto",      "recvfrom",    "sendmsg",    "recvmsg",   "sendmmsg",
    "recvmmsg", "shutdown", "getsockname", "getpeername", "setsockopt", "getsockopt"};

// What serving a page over TCP needs (civetweb, prometheus-cpp).
constexpr const char* kExporterAllowed[] = {"exit",
                                            "exit_group",
                                            "getpid",
                                            "gettid",
                                            "set_robust_list",
                                            "rseq",
                                            "membarrier",
                                            "getrandom",
                                            "uname",
                                            "prlimit64",
                                            "restart_syscall",
                                            "prctl",
                                            "rt_sigaction",
                                            "rt_sigprocmask",
                                            "rt_sigreturn",
                                            "sigaltstack",
                                            "getuid",
                                            "geteuid",
                                            "getgid",
                                            "getegid",
                                            "getrusage",
                                            "sched_yield",
                                            "sched_getaffinity",
                                            "brk",
                                            "mmap",
                                            "munmap",
                                            "mremap",
                                            "mprotect",
                                            "madvise",
                                            "futex",
                                            "clock_gettime",
                                            "clock_getres",
                                            "clock_nanosleep",
                                            "nanosleep",
                                            "gettimeofday",
                                            "time",
                                            "read",
                                            "write",
                                            "readv",
                                            "writev",
                                            "close",
                                            "fcntl",
                                            "pipe2",
                                            "eventfd2",
                                            "poll",
                                            "ppoll",
                                            "bind",
                                            "listen",
                                            "accept",
                                            "accept4",
                                            "sendto",
                                            "recvfrom",
                                            "sendmsg",
                                            "recvmsg",
                                            "shutdown",
                                            "getsockname",
                                            "getpeername",
                                            "setsockopt",
                                            "getsockopt"};

// How glibc's pthread_create calls clone(2), the signal's byte being 0: threads, never processes.
constexpr uint32_t kThreadFlags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SYSVSEM |
                                  CLONE_SIGHAND | CLONE_THREAD | CLONE_SETTLS |
                                  CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID;

// What a capability is for, as moby's default profile has it.
struct CapabilityCall {
  uint32_t capability;
  const char* name;
};
constexpr CapabilityCall kOfCapabilities[] = {{CAP_SYS_ADMIN, "unshare"},
                                              {CAP_SYS_ADMIN, "setns"},
                                              {CAP_SYS_ADMIN, "mount"},
                                              {CAP_SYS_ADMIN, "umount2"},
                                              {CAP_SYS_ADMIN, "pivot_root"},
                                              {CAP_SYS_ADMIN, "fsopen"},
                                              {CAP_SYS_ADMIN, "fsconfig"},
                                              {CAP_SYS_ADMIN, "fsmount"},
                                              {CAP_SYS_ADMIN, "fspick"},
                                              {CAP_SYS_ADMIN, "open_tree"},
                                              {CAP_SYS_ADMIN, "move_mount"},
                                              {CAP_SYS_ADMIN, "mount_setattr"},
                                              {CAP_SYS_ADMIN, "bpf"},
                                              {CAP_SYS_ADMIN, "perf_event_open"},
                                              {CAP_SYS_ADMIN, "syslog"},
                                              {CAP_SYS_ADMIN, "quotactl"},
                                              {CAP_SYS_ADMIN, "quotactl_fd"},
                                              {CAP_SYS_ADMIN, "sethostname"},
                                              {CAP_SYS_ADMIN, "setdomainname"},
                                              {CAP_SYS_ADMIN, "fanotify_init"},
                                              {CAP_SYS_ADMIN, "fanotify_mark"},
                                              {CAP_SYS_ADMIN, "lookup_dcookie"},
                                              {CAP_SYS_ADMIN, "clone"},
                                              {CAP_SYS_ADMIN, "clone3"},
                                              {CAP_DAC_READ_SEARCH, "open_by_handle_at"},
                                              {CAP_SYS_BOOT, "reboot"},
                                              {CAP_SYS_CHROOT, "chroot"},
                                              {CAP_SYS_MODULE, "init_module"},
                                              {CAP_SYS_MODULE, "finit_module"},
                                              {CAP_SYS_MODULE, "delete_module"},
                                              {CAP_SYS_PACCT, "acct"},
                                              {CAP_SYS_PTRACE, "kcmp"},
                                              {CAP_SYS_PTRACE, "pidfd_getfd"},
                                              {CAP_SYS_PTRACE, "process_madvise"},
                                              {CAP_SYS_RAWIO, "iopl"},
                                              {CAP_SYS_RAWIO, "ioperm"},
                                              {CAP_SYS_TIME, "settimeofday"},
                                              {CAP_SYS_TIME, "clock_settime"},
                                              {CAP_SYS_TTY_CONFIG, "vhangup"},
                                              {CAP_SYS_NICE, "get_mempolicy"},
                                              {CAP_SYS_NICE, "set_mempolicy"},
                                              {CAP_SYS_NICE, "set_mempolicy_home_node"},
                                              {CAP_SYS_NICE, "mbind"},
                                              {CAP_SYS_NICE, "move_pages"},
                                              {CAP_SYS_NICE, "migrate_pages"},
                                              {CAP_SYSLOG, "syslog"},
                                              {CAP_BPF, "bpf"},
                                              {CAP_PERFMON, "perf_event_open"}};

// New namespaces by clone(2): mount, cgroup, UTS, IPC, user, PID, network. (CLONE_NEWTIME is not a
// flag of clone: its bit belongs to the exit signal.)
constexpr uint32_t kNamespaceFlags = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC |
                                     CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET;

// Personalities that only describe the system: none, UNAME26, PER_LINUX32 and both, and the query.
// The others switch address randomisation off or make memory executable.
const std::vector<uint32_t> kPersonalities = {0, 0x8, 0x20000, 0x20008, 0xffffffff};

// Not AF_ALG, AF_VSOCK and the many rarely used protocols; AF_PACKET is what CAP_NET_RAW is for.
std::vector<uint32_t> SocketFamilies(const std::set<uint32_t>& capabilities) {
  std::vector<uint32_t> families = {AF_UNIX, AF_INET, AF_INET6, AF_NETLINK};
  if (capabilities.contains(CAP_NET_RAW)) families.push_back(AF_PACKET);
  return families;
}

std::vector<std::pair<const char*, CallRule>> ConditionalRules(
    const std::set<uint32_t>& capabilities) {
  using Kind = CallRule::Kind;
  return {
      {"clone", {Kind::kAllowIfClear, 0, {kNamespaceFlags}}},
      // Its arguments lie in memory, out of a filter's sight; libc falls back to clone.
      {"clone3", {Kind::kMissing, 0, {}}},
      {"socket", {Kind::kAllowIfOneOf, 0, SocketFamilies(capabilities)}},
      {"personality", {Kind::kAllowIfOneOf, 0, kPersonalities}},
      // Typing into a terminal that somebody else reads.
      {"ioctl", {Kind::kAllowIfNoneOf, 1, {TIOCSTI, TIOCLINUX}}},
      // A listener could answer for the processes of others who trust this filter.
      {"seccomp", {Kind::kAllowIfClear, 1, {SECCOMP_FILTER_FLAG_NEW_LISTENER}}},
  };
}

// Names that are not on x86-64, or newer than this libseccomp, stay "missing".
void Set(CallRules& rules, const char* name, const CallRule& rule) {
  const int number = seccomp_syscall_resolve_name_arch(SCMP_ARCH_X86_64, name);
  if (number >= 0) rules[static_cast<uint32_t>(number)] = rule;
}

// For a process of ours: these calls and threads.
CallRules OnlyThese(absl::Span<const char* const> names) {
  CallRules rules;
  // Whatever else is known is refused, not missing: EPERM ends it, ENOSYS invites to a fallback.
  for (const char* name : kAllowed) Set(rules, name, {CallRule::Kind::kDeny, 0, {}});
  for (const char* name : kDenied) Set(rules, name, {CallRule::Kind::kDeny, 0, {}});
  for (const char* name : names) Set(rules, name, {CallRule::Kind::kAllow, 0, {}});
  Set(rules, "socket", {CallRule::Kind::kDeny, 0, {}});
  // Exactly a thread; clone3 stays missing, for which libc falls back to this.
  Set(rules, "clone", {CallRule::Kind::kAllowIfOneOf, 0, {kThreadFlags}});
  return rules;
}

}  // namespace

CallRules PayloadCallRules(const std::set<uint32_t>& capabilities) {
  CallRules rules;
  for (const char* name : kAllowed) Set(rules, name, {CallRule::Kind::kAllow, 0, {}});
  for (const char* name : kDenied) Set(rules, name, {CallRule::Kind::kDeny, 0, {}});
  for (const auto& [name, rule] : ConditionalRules(capabilities)) Set(rules, name, rule);
  for (const CapabilityCall& call : kOfCapabilities) {
    if (capabilities.contains(call.capability)) {
      Set(rules, call.name, {CallRule::Kind::kAllow, 0, {}});
    }
  }
  return rules;
}

std::string PayloadFilter(const std::set<uint32_t>& capabilities) {
  return EmitFilter(PayloadCallRules(capabilities));
}

// pid 1 clones payloads into their cgroup on v2 (cgroups/join.cc). They have both filters, and
// theirs refuses clone3.
std::string InitFilter(const std::set<uint32_t>& capabilities, bool user_namespace) {
  CallRules rules = PayloadCallRules(capabilities);
  rules[SYS_clone3] = {CallRule::Kind::kAllow, 0, {}};
  if (user_namespace && !capabilities.contains(CAP_SYS_ADMIN)) {
    rules[SYS_setns] = {CallRule::Kind::kAllowIfOneOf, 1, {CLONE_NEWUSER}};
  }
  return EmitFilter(rules);
}

std::string ImageWorkerFilter(bool network) {
  CallRules rules = OnlyThese(kWorkerAllowed);
  if (network) {
    for (const char* name : kWorkerNetwork) Set(rules, name, {CallRule::Kind::kAllow, 0, {}});
    Set(rules, "socket", {CallRule::Kind::kAllowIfOneOf, 0, {AF_INET, AF_INET6}});
    // libcurl's wakeup of its resolver; a pair leads nowhere else.
    Set(rules, "socketpair", {CallRule::Kind::kAllowIfOneOf, 0, {AF_UNIX}});
  }
  return EmitFilter(rules);
}

std::string ExporterFilter() {
  CallRules rules = OnlyThese(kExporterAllowed);
  Set(rules, "socket", {CallRule::Kind::kAllowIfOneOf, 0, {AF_INET, AF_INET6}});
  return EmitFilter(rules);
}

std::string OpenFilter() {
  const sock_filter allow = {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW};
  return std::string(reinterpret_cast<const char*>(&allow), sizeof(allow));
}

}  // namespace jenkins_agent
