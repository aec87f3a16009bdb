#include "driver/task/plan_privileges.h"

#include <linux/capability.h>
#include <sys/resource.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "driver/base/digest.h"
#include "driver/base/status.h"
#include "driver/config/capabilities.h"
#include "driver/config/ulimit.h"
#include "driver/sandbox/host_rootfs.h"
#include "driver/sandbox/seccomp.h"

namespace jenkins_agent {
namespace {

// The last ids that systemd gives to containers (systemd.io/UIDS-GIDS, 0x00080000 to 0x6FFFFFFF):
// no account of the host has them. All tasks share them as they share nobody: what keeps tasks
// apart are their pid, mount and IPC namespaces.
constexpr uint32_t kFirstHostId = 0x6FFE0000;
constexpr uint32_t kUsualIds = 0x10000;
// Of them those that own the namespaces: a task that uses up a quota of its owner's leaves the
// host's root and nearly all other tasks theirs.
constexpr uint32_t kFirstOwner = kFirstHostId + 0x18000;
constexpr uint32_t kOwners = 0x8000;
// Of users and groups beyond the usual ids, such as those that Nomad hands out; the kernel allows
// 340 lines in a map.
constexpr uint32_t kMaxOtherIds = 64;

std::string Names(const CapabilitySet& capabilities) {
  std::string names;
  for (const uint32_t capability : capabilities) {
    absl::StrAppend(&names, names.empty() ? "" : ", ", CapabilityName(capability));
  }
  return names;
}

CapabilitySet Without(CapabilitySet set, const CapabilitySet& others) {
  for (const uint32_t capability : others) set.erase(capability);
  return set;
}

absl::StatusOr<CapabilitySet> AskedCapabilities(const PlanInput& input) {
  const Isolation& isolation = input.options.isolation;
  ASSIGN_OR_RETURN(const CapabilitySet wanted,
                   WantedCapabilities(isolation.cap_add, isolation.cap_drop));
  ASSIGN_OR_RETURN(const CapabilitySet allowed, ParseCapabilities(input.policy.allow_caps),
                   "allow_caps");
  const CapabilitySet refused = Without(wanted, allowed);
  if (!refused.empty()) {
    return absl::PermissionDeniedError(
        absl::StrCat("cap_add: ", Names(refused), " is not in the plugin's option allow_caps = [",
                     Names(allowed), "]; remove it from the job or let the operator add it"));
  }
  const CapabilitySet missing = Without(wanted, input.host.capabilities);
  if (!missing.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("cap_add: the Nomad agent itself does not have ", Names(missing),
                     ", so it cannot give it to a task"));
  }
  return wanted;
}

void SetCapabilities(const CapabilitySet& capabilities, pb::SandboxSpec& sandbox) {
  for (const uint32_t capability : capabilities) sandbox.add_capabilities(capability);
}

// docker's meaning: all that the driver itself may do, nothing hidden, no filter. What stays are
// the namespaces and the limits.
absl::Status PlanPrivileged(const PlanInput& input, pb::SandboxSpec& sandbox) {
  if (!input.policy.allow_privileged) {
    return absl::PermissionDeniedError(
        "privileged: the plugin's option allow_privileged = false forbids it; remove it from the "
        "job or let the operator set allow_privileged = true");
  }
  SetCapabilities(input.host.capabilities, sandbox);
  sandbox.set_payload_filter(OpenFilter());
  sandbox.set_init_filter(OpenFilter());
  for (pb::MountSpec& mount : *sandbox.mutable_mounts()) {
    if (mount.kind() == pb::MountSpec::SYSFS) mount.set_read_only(false);
  }
  return absl::OkStatus();
}

void HideAndProtect(pb::SandboxSpec& sandbox) {
  for (const std::string& path : DefaultMaskedPaths()) sandbox.add_masked_paths(path);
  for (const std::string& path : DefaultReadOnlyPaths()) sandbox.add_read_only_paths(path);
}

bool CanBringDevices(const pb::SandboxSpec& sandbox) {
  return std::any_of(
      sandbox.capabilities().begin(), sandbox.capabilities().end(),
      [](uint32_t capability) { return capability == CAP_MKNOD || capability == CAP_SYS_ADMIN; });
}

std::vector<pb::DeviceSpec> DevicesIn(const pb::SandboxSpec& sandbox) {
  std::vector<pb::DeviceSpec> devices;
  for (const pb::MountSpec& mount : sandbox.mounts()) {
    devices.insert(devices.end(), mount.devices().begin(), mount.devices().end());
  }
  return devices;
}

void AllowDevice(const pb::DeviceSpec& device, pb::DeviceControl& control) {
  if (device.cgroup_permissions().empty()) return;
  pb::DeviceRule& rule = *control.add_allowed();
  rule.set_type(device.block() ? pb::DeviceRule::BLOCK : pb::DeviceRule::CHARACTER);
  rule.set_major(device.major_number());
  rule.set_minor(device.minor_number());
  rule.set_access(device.cgroup_permissions());
}

void AddRange(uint32_t inside, uint32_t outside, uint32_t count, pb::UserSpec& user) {
  pb::IdRange& range = *user.add_id_map();
  range.set_inside(inside);
  range.set_outside(outside);
  range.set_count(count);
}

uint32_t OwnerFor(const std::string& task_id) {
  return kFirstOwner + std::stoul(Sha256Hex(task_id).substr(0, 8), nullptr, 16) % kOwners;
}

void AddLimit(int resource, uint64_t soft, uint64_t hard, pb::SandboxSpec& sandbox) {
  pb::RlimitSpec& limit = *sandbox.add_rlimits();
  limit.set_resource(resource);
  limit.set_soft(soft);
  limit.set_hard(hard);
}

// RLIM_INFINITY is the largest number, so it compares as what it means.
absl::Status CheckLimit(const HostLimits& host, const Ulimit& ulimit) {
  const auto maximum = host.hard_limits.find(ulimit.resource);
  if (maximum == host.hard_limits.end() || ulimit.hard <= maximum->second) {
    return absl::OkStatus();
  }
  const std::string asked = ulimit.hard == RLIM_INFINITY ? "no limit" : absl::StrCat(ulimit.hard);
  return absl::InvalidArgumentError(absl::StrCat(
      "ulimit.", ulimit.name, ": ", asked, " is above this host's maximum, ", maximum->second));
}

}  // namespace

absl::Status PlanPrivileges(const PlanInput& input, pb::SandboxSpec& sandbox) {
  if (input.options.isolation.privileged) return PlanPrivileged(input, sandbox);
  ASSIGN_OR_RETURN(const CapabilitySet capabilities, AskedCapabilities(input));
  SetCapabilities(capabilities, sandbox);
  HideAndProtect(sandbox);
  const std::shared_ptr<const Filters> filters =
      input.filters.Get(capabilities, input.options.isolation.userns);
  sandbox.set_payload_filter(filters->payload);
  sandbox.set_init_filter(filters->init);
  return absl::OkStatus();
}

void PlanDeviceControl(const PlanInput& input, const pb::SandboxSpec& sandbox,
                       pb::CgroupSpec& cgroup) {
  if (input.options.isolation.privileged) return;
  const std::vector<pb::DeviceSpec> devices = DevicesIn(sandbox);
  if (devices.empty() && !CanBringDevices(sandbox)) return;
  pb::DeviceControl& control = *cgroup.mutable_device_control();
  for (const pb::DeviceSpec& device : devices) AllowDevice(device, control);
}

absl::Status PlanUserNamespace(const PlanInput& input, pb::UserSpec& user) {
  if (!input.options.isolation.userns) return absl::OkStatus();
  std::set<uint32_t> others = {user.uid(), user.gid()};
  others.insert(user.groups().begin(), user.groups().end());
  others.erase(others.begin(), others.lower_bound(kUsualIds));
  if (others.size() > kMaxOtherIds) {
    return absl::InvalidArgumentError(absl::StrCat("userns: the task's user has ", others.size(),
                                                   " groups with ids above ", kUsualIds - 1,
                                                   " (allowed: ", kMaxOtherIds, ")"));
  }
  user.set_namespace_owner(OwnerFor(input.task.id()));
  AddRange(0, kFirstHostId, kUsualIds, user);
  uint32_t outside = kFirstHostId + kUsualIds;
  for (const uint32_t id : others) AddRange(id, outside++, 1, user);
  return absl::OkStatus();
}

absl::Status PlanLimits(const PlanInput& input, pb::SandboxSpec& sandbox) {
  ASSIGN_OR_RETURN(const std::vector<Ulimit> ulimits, ParseUlimits(input.options.isolation.ulimit));
  // JVMs raise their soft limit to the hard one anyway.
  const auto files = input.host.hard_limits.find(RLIMIT_NOFILE);
  if (files != input.host.hard_limits.end()) {
    AddLimit(RLIMIT_NOFILE, files->second, files->second, sandbox);
  }
  for (const Ulimit& ulimit : ulimits) {
    RETURN_IF_ERROR(CheckLimit(input.host, ulimit));
    AddLimit(ulimit.resource, ulimit.soft, ulimit.hard, sandbox);
  }
  return absl::OkStatus();
}

uint64_t StackLimit(const PlanInput& input, const pb::SandboxSpec& sandbox) {
  uint64_t limit = input.stack_limit;
  for (const pb::RlimitSpec& rlimit : sandbox.rlimits()) {
    if (rlimit.resource() == RLIMIT_STACK) limit = rlimit.soft();
  }
  return limit;
}

}  // namespace jenkins_agent
