// The system call filters of the sandbox, made once per plugin start and passed as bytes: building
// one costs more than loading it, and the static supervisor stays free of libseccomp.
//
// An allow-list: whatever is not named is refused, so a system call that a newer kernel brings is
// missing (ENOSYS) until somebody looked at it. Thread-safe.
#pragma once

#include <cstdint>
#include <set>
#include <string>

#include "driver/sandbox/filter_program.h"

namespace jenkins_agent {

// struct sock_filter[] for SandboxSpec.payload_filter: JVMs, compilers, git, shells, debuggers of
// own processes. No namespaces, mounts, keys, BPF, io_uring, kernel modules, foreign architectures,
// except the calls that one of `capabilities` (CAP_*) is for, which the kernel checks anew.
std::string PayloadFilter(const std::set<uint32_t>& capabilities = {});

// For SandboxSpec.init_filter. Filters stack: every process that pid 1 launches has pid 1's filter
// below its own, so this one refuses nothing that the payload may do. With `user_namespace` it lets
// the launch child enter that too; the payload's own filter does not.
std::string InitFilter(const std::set<uint32_t>& capabilities = {}, bool user_namespace = false);

// For the worker that unpacks images: files, threads, memory, time and, with `network`, IPv4 and
// IPv6 sockets. No program is executed, no process looked at, no other kind of socket made.
std::string ImageWorkerFilter(bool network);

// For the metrics listener, once it runs: threads, memory, time, TCP, and the sockets that it has.
// No file is opened, no program executed, no process looked at or signalled.
std::string ExporterFilter();

// Both for a privileged task: refuses nothing. It exists because no filter at all is an error.
std::string OpenFilter();

// The decisions behind PayloadFilter(), by number.
CallRules PayloadCallRules(const std::set<uint32_t>& capabilities = {});

}  // namespace jenkins_agent
