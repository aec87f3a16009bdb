#include "tests/judge/oci_config.h"

#include <sys/resource.h>

#include <filesystem>
#include <string>
#include <system_error>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "driver/config/capabilities.h"
#include "driver/sandbox/template_plan.h"

namespace jenkins_agent {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr uint32_t kNobody = 65534;  // the kernel's overflowuid: an id that a map leaves out

bool Exists(const std::string& path) {
  std::error_code error;
  return fs::exists(path, error);
}

json Options(const pb::MountSpec& mount, bool inert) {
  json options = {mount.read_only() ? "ro" : "rw", "nosuid"};
  if (mount.kind() != pb::MountSpec::DEV && mount.kind() != pb::MountSpec::DEVPTS) {
    options.push_back("nodev");
  }
  if (inert || mount.no_exec()) options.push_back("noexec");
  return options;
}

json FileSystem(const pb::MountSpec& mount, const char* type, bool inert) {
  return {{"destination", mount.target()}, {"type", type}, {"options", Options(mount, inert)}};
}

json Bind(const pb::MountSpec& mount) {
  json options = Options(mount, false);
  options.push_back("rbind");
  options.push_back(mount.propagation() == pb::MountSpec::SHARED  ? "rshared"
                    : mount.propagation() == pb::MountSpec::SLAVE ? "rslave"
                                                                  : "rprivate");
  return {{"destination", mount.target()},
          {"source", fs::canonical(mount.source()).string()},
          {"options", options}};
}

bool HasV1() { return Exists("/sys/fs/cgroup/memory"); }

// v1 has one directory for each hierarchy, on a tmpfs; v2 the task's own.
void AddCgroupDirectories(const pb::MountSpec& mount, json& mounts) {
  if (HasV1()) mounts.push_back(FileSystem(mount, "tmpfs", true));
}

void AddCgroups(const pb::MountSpec& mount, json& mounts) {
  if (!HasV1()) return mounts.push_back(FileSystem(mount, "cgroup2", true));
  json options = {"ro", "nosuid", "nodev", "noexec"};
  for (const char* controller : {"memory", "cpu", "cpuacct", "cpuset"}) {
    mounts.push_back({{"destination", absl::StrCat(mount.target(), "/", controller)},
                      {"type", "cgroup"},
                      {"options", options}});
  }
}

// Links, files, directories and mount points of the plan are no mounts.
void AddMount(const pb::MountSpec& mount, json& mounts) {
  switch (mount.kind()) {
    case pb::MountSpec::BIND:
      if (!mount.optional() || Exists(mount.source())) mounts.push_back(Bind(mount));
      return;
    case pb::MountSpec::TMPFS:
      return mounts.push_back(FileSystem(mount, "tmpfs", false));
    case pb::MountSpec::PROC:
      return mounts.push_back(FileSystem(mount, "proc", true));
    case pb::MountSpec::SYSFS:
      return mounts.push_back(FileSystem(mount, "sysfs", true));
    case pb::MountSpec::DEVPTS:
      return mounts.push_back(FileSystem(mount, "devpts", true));
    case pb::MountSpec::MQUEUE:
      return mounts.push_back(FileSystem(mount, "mqueue", true));
    case pb::MountSpec::DEV:
      return mounts.push_back(FileSystem(mount, "tmpfs", true));
    case pb::MountSpec::CGROUP:
      return AddCgroups(mount, mounts);
    case pb::MountSpec::FILES:
      return mounts.push_back({{"destination", mount.target()},
                               {"type", "tmpfs"},
                               {"options", {"ro", "nosuid", "nodev", "noexec"}}});
    default:
      return;
  }
}

// Those of the template come first.
json Mounts(const pb::LaunchSpec& spec) {
  pb::SandboxSpec own = spec.sandbox();
  const pb::TemplateSpec shared = TakeTemplate(own, spec.user());
  json mounts = json::array();
  bool has_directories = false;
  for (const pb::MountSpec& mount : shared.mounts()) {
    if (mount.kind() != pb::MountSpec::CGROUP) {
      AddMount(mount, mounts);
      continue;
    }
    AddCgroupDirectories(mount, mounts);
    has_directories = true;
  }
  for (const pb::MountSpec& mount : own.mounts()) {
    const bool cgroup = mount.kind() == pb::MountSpec::CGROUP;
    if (cgroup && !has_directories) AddCgroupDirectories(mount, mounts);
    AddMount(mount, mounts);
  }
  return mounts;
}

// ---- process ----

const char* LimitName(uint32_t resource) {
  switch (resource) {
    case RLIMIT_NOFILE:
      return "RLIMIT_NOFILE";
    case RLIMIT_NPROC:
      return "RLIMIT_NPROC";
    case RLIMIT_FSIZE:
      return "RLIMIT_FSIZE";
    case RLIMIT_MEMLOCK:
      return "RLIMIT_MEMLOCK";
    case RLIMIT_STACK:
      return "RLIMIT_STACK";
    default:
      return "not named here";  // the judge refuses it
  }
}

json Limits(const pb::LaunchSpec& spec) {
  json limits = {{{"type", "RLIMIT_CORE"}, {"soft", 0}, {"hard", 0}}};
  for (const pb::RlimitSpec& limit : spec.sandbox().rlimits()) {
    limits.push_back(
        {{"type", LimitName(limit.resource())}, {"soft", limit.soft()}, {"hard", limit.hard()}});
  }
  return limits;
}

// The bounding set is empty, so that no program can add to what the task was given.
json Capabilities(const pb::LaunchSpec& spec) {
  json given = json::array();
  for (const uint32_t capability : spec.sandbox().capabilities()) {
    given.push_back(absl::StrCat("CAP_", absl::AsciiStrToUpper(CapabilityName(capability))));
  }
  return {{"bounding", json::array()},
          {"effective", given},
          {"permitted", given},
          {"inheritable", given},
          {"ambient", given}};
}

json Process(const pb::LaunchSpec& spec) {
  const pb::UserSpec& user = spec.user();
  json groups = json::array();
  for (const uint32_t group : user.groups()) groups.push_back(group);
  json args = json::array();
  for (const std::string& argument : spec.program().argv()) args.push_back(argument);
  json env = json::array();
  for (const std::string& variable : spec.program().env()) env.push_back(variable);
  return {{"args", args},
          {"env", env},
          {"cwd", spec.program().work_dir()},
          {"user",
           {{"uid", user.uid()}, {"gid", user.gid()}, {"additionalGids", groups}, {"umask", 022}}},
          {"rlimits", Limits(spec)},
          {"capabilities", Capabilities(spec)},
          {"noNewPrivileges", true},
          {"oomScoreAdj", 0}};
}

// ---- linux ----

json Device(const std::string& path, bool block, uint32_t major, uint32_t minor, uint32_t mode,
            uint32_t uid, uint32_t gid) {
  return {{"path", "/dev/" + path},
          {"type", block ? "b" : "c"},
          {"major", major},
          {"minor", minor},
          {"fileMode", mode},
          {"uid", uid},
          {"gid", gid}};
}

// The specification's default devices are root's of the host.
json Devices(const pb::LaunchSpec& spec) {
  const uint32_t root = spec.user().id_map().empty() ? 0 : kNobody;
  json devices = {Device("null", false, 1, 3, 0666, root, root),
                  Device("zero", false, 1, 5, 0666, root, root),
                  Device("full", false, 1, 7, 0666, root, root),
                  Device("random", false, 1, 8, 0666, root, root),
                  Device("urandom", false, 1, 9, 0666, root, root),
                  Device("tty", false, 5, 0, 0666, root, root)};
  for (const pb::MountSpec& mount : spec.sandbox().mounts()) {
    for (const pb::DeviceSpec& device : mount.devices()) {
      devices.push_back(Device(device.path(), device.block(), device.major_number(),
                               device.minor_number(), device.mode(), device.uid(), device.gid()));
    }
  }
  return devices;
}

json Namespaces(const pb::LaunchSpec& spec) {
  json namespaces = json::array();
  for (const char* type : {"mount", "pid", "ipc", "uts", "cgroup"}) {
    namespaces.push_back({{"type", type}});
  }
  if (!spec.user().id_map().empty()) namespaces.push_back({{"type", "user"}});
  if (spec.sandbox().own_network()) namespaces.push_back({{"type", "network"}});
  return namespaces;
}

json IdMap(const pb::LaunchSpec& spec) {
  json map = json::array();
  for (const pb::IdRange& range : spec.user().id_map()) {
    map.push_back(
        {{"containerID", range.inside()}, {"hostID", range.outside()}, {"size", range.count()}});
  }
  return map;
}

json Resources(const pb::CgroupSpec& cgroup) {
  return {{"memory", {{"limit", cgroup.memory_bytes()}, {"swap", cgroup.memory_bytes()}}},
          {"cpu", {{"shares", cgroup.cpu_shares()}}},
          {"pids", {{"limit", cgroup.pids()}}}};
}

json Existing(const google::protobuf::RepeatedPtrField<std::string>& paths) {
  json existing = json::array();
  for (const std::string& path : paths) {
    if (Exists(path)) existing.push_back(path);
  }
  return existing;
}

json Linux(const pb::LaunchSpec& spec) {
  json config = {{"namespaces", Namespaces(spec)},
                 {"devices", Devices(spec)},
                 {"resources", Resources(spec.cgroup())},
                 {"maskedPaths", Existing(spec.sandbox().masked_paths())},
                 {"readonlyPaths", Existing(spec.sandbox().read_only_paths())},
                 {"seccomp", {{"defaultAction", "SCMP_ACT_ERRNO"}}}};
  if (!spec.user().id_map().empty()) {
    config["uidMappings"] = IdMap(spec);
    config["gidMappings"] = IdMap(spec);
  }
  return config;
}

}  // namespace

json OciConfig(const pb::LaunchSpec& spec) {
  return {{"ociVersion", "1.2.0"},
          {"hostname", spec.sandbox().hostname()},
          {"root", {{"path", "/"}, {"readonly", true}}},
          {"process", Process(spec)},
          {"mounts", Mounts(spec)},
          {"linux", Linux(spec)}};
}

}  // namespace jenkins_agent
