// Which device nodes a task may make and open, and how v1 and v2 are told. Pure.
//
// Only for tasks that could open others in the first place: privileged ones, those with CAP_MKNOD,
// and those with devices or device mounts. The rest sees a read-only /dev with six nodes, has no
// way to make more, and saves 0.3 ms of each start (spike.md 8.2).
#pragma once

#include <linux/bpf.h>

#include <cstdint>
#include <string>
#include <vector>

namespace jenkins_agent::cgroups {

inline constexpr int64_t kAnyNumber = -1;

struct DeviceRule {
  char type = 'a';             // 'c'haracter, 'b'lock, 'a'll
  int64_t major = kAnyNumber;  // of 'a' both numbers are any
  int64_t minor = kAnyNumber;
  std::string access = {};  // of "r"ead, "w"rite, "m"knod
  bool operator==(const DeviceRule&) const = default;
};

// docker's and runc's list (opencontainers/runc libcontainer/specconv, AllowedDevices): null, zero,
// full, random, urandom, tty, console, ptmx and terminals; any node may be made.
std::vector<DeviceRule> StandardDevices();

// A line of v1's devices.allow (Documentation/admin-guide/cgroup-v1/devices.rst): "c 1:3 rwm".
std::string DeviceLine(const DeviceRule& rule);

// The program of type BPF_PROG_TYPE_CGROUP_DEVICE for v2: allows what a rule allows, nothing else.
// It gets struct bpf_cgroup_dev_ctx (linux/bpf.h) and returns 1 or 0. At most kMaxDeviceRules rules
// count.
inline constexpr size_t kMaxDeviceRules = 256;  // jumps reach 32767 instructions, a rule has 9
std::vector<bpf_insn> DeviceProgram(const std::vector<DeviceRule>& rules);

}  // namespace jenkins_agent::cgroups
